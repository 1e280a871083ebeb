"""Merges of weights: the arithmetic, the parents, and what does not fit."""

import fcntl
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from actors.registry.history import History
from actors.registry.merging import Strategy
from cluster.errors import Conflict, InvalidRequest, ModelInvalid, NotFound
from tests.actors.registry.conftest import write_model


@pytest.fixture
def forked(registry, tmp_path):
    """main at v3 and tuned at v2, both of v1; the weights of each."""
    torch.manual_seed(0)
    kept = {}
    for version, branch in (("v1", "main"), ("v2", "tuned"), ("v3", "main")):
        kept[version] = {
            "a.weight": torch.randn(6, 4), "half": torch.randn(5).bfloat16(), "count": torch.arange(3),
        }  # fmt: skip
        path = write_model(tmp_path / version, kept[version], hidden_size=4)
        assert registry.push("chat", path, author="ada", branch=branch).version == version
    return kept


def merged(registry, tmp_path, source, strategy, **more):
    made = registry.merge("chat", source, author="ada", strategy=strategy, **more)
    registry.checkout("chat", made.version, tmp_path / "merged")
    return made, load_file(tmp_path / "merged" / "model.safetensors")


def test_linear_is_between_both(registry, forked, tmp_path):
    made, found = merged(registry, tmp_path, "tuned", Strategy("linear", 0.25))
    for name in ("a.weight", "half"):
        wanted = 0.75 * forked["v3"][name].float() + 0.25 * forked["v2"][name].float()
        torch.testing.assert_close(found[name], wanted.to(found[name].dtype))
    assert torch.equal(found["count"], forked["v3"]["count"])
    shown = registry.show("chat", made.version)
    assert shown.entry.parents == (registry.show("chat", "v3").entry.id, registry.show("chat", "v2").entry.id)
    assert shown.metadata["merge"]["strategy"] == "linear"
    assert "main" in shown.names
    assert registry.fsck() == []


def test_a_task_vector_is_added_from_where_both_began(registry, forked, tmp_path):
    _, found = merged(registry, tmp_path, "tuned", Strategy("task", 2.0))
    wanted = forked["v3"]["a.weight"] + 2 * (forked["v2"]["a.weight"] - forked["v1"]["a.weight"])
    torch.testing.assert_close(found["a.weight"], wanted)


@pytest.mark.parametrize("strategy", ["linear", "theirs"])
def test_nobody_collects_what_a_merge_has_stored_before_its_commit_names_it(registry, forked, monkeypatch, strategy):
    free, commit = [], History.commit

    def look(self, *given):
        with (registry.folder / "content.lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as a collection takes it
                free.append(True)
            except BlockingIOError:
                free.append(False)
        return commit(self, *given)

    monkeypatch.setattr(History, "commit", look)
    registry.merge("chat", "tuned", author="ada", strategy=Strategy(strategy))
    assert free == [False]


@pytest.mark.parametrize(("strategy", "version"), [("ours", "v3"), ("theirs", "v2")])
def test_one_of_both_is_taken_as_it_is(registry, forked, tmp_path, strategy, version):
    made, found = merged(registry, tmp_path, "tuned", Strategy(strategy))
    assert made.stored == 0
    assert all(torch.equal(found[name], forked[version][name]) for name in found)


@pytest.mark.parametrize("stable", [False, True])
def test_an_adapter_is_added_to_the_weights_it_names(registry, forked, tmp_path, stable):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    down, up = torch.randn(2, 4), torch.randn(6, 2)
    prefix = "base_model.model.a"
    save_file({f"{prefix}.lora_A.weight": down, f"{prefix}.lora_B.weight": up}, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 4, "use_rslora": stable}))
    made, found = merged(registry, tmp_path, str(adapter), Strategy("lora", 1.0))
    scale = 4 / 2**0.5 if stable else 2
    torch.testing.assert_close(found["a.weight"], forked["v3"]["a.weight"] + scale * up @ down)
    assert torch.equal(found["half"], forked["v3"]["half"])
    assert registry.show("chat", made.version).entry.parents == (registry.show("chat", "v3").entry.id,)

    save_file({f"{prefix}.lora_A.weight": down}, adapter / "adapter_model.safetensors")
    with pytest.raises(ModelInvalid, match="fits no weight"):
        registry.merge("chat", str(adapter), author="ada", strategy=Strategy("lora"))
    with pytest.raises(ModelInvalid, match=r"adapter_config.json: is not there"):
        registry.merge("chat", str(tmp_path / "nowhere"), author="ada", strategy=Strategy("lora"))


def test_what_does_not_fit_names_what_and_leaves_nothing(registry, forked, tmp_path):
    tip = registry.show("chat").entry.id
    others = {
        "shape": ({"a.weight": torch.randn(6, 5), "half": forked["v1"]["half"]}, {"hidden_size": 4}, "a.weight as F32"),
        "type": ({"a.weight": torch.randn(6, 4).half()}, {"hidden_size": 4}, "a.weight as F16"),
        "numbers": (forked["v1"] | {"count": torch.ones(3, dtype=torch.int64)}, {"hidden_size": 4}, "whole numbers"),
        "architecture": (forked["v1"], {"hidden_size": 4, "model_type": "gemma"}, "model_type 'gemma'"),
    }
    for branch, (weights, config, problem) in others.items():
        path = write_model(tmp_path / branch, weights, **config)
        registry.push("chat", path, author="ada", branch=branch)
        with pytest.raises(ModelInvalid, match=problem):
            registry.merge("chat", branch, author="ada", strategy=Strategy("linear"))
    assert registry.show("chat").entry.id == tip
    assert registry.gc() == 0
    with pytest.raises(NotFound, match="no branch chat@other"):
        registry.merge("chat", "tuned", author="ada", branch="other", strategy=Strategy("linear"))
    with pytest.raises(Conflict, match="in main already"):
        registry.merge("chat", "v1", author="ada", strategy=Strategy("linear"))


def with_values(weights, name, *values):
    """The weights with these values at the beginning of one."""
    made = weights[name].clone()
    made.view(-1)[: len(values)] = torch.tensor(values).to(made.dtype)
    return weights | {name: made}


@pytest.mark.parametrize(
    ("strategy", "branch", "side"), [("linear", "main", "ours"), ("linear", "tuned", "chat@tuned"),
                                     ("task", "main", "ours"), ("task", "tuned", "chat@tuned")],
)  # fmt: skip
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_nothing_is_computed_of_values_that_are_not_finite(registry, forked, tmp_path, strategy, branch, side, value):
    of = {"main": "v3", "tuned": "v2"}[branch]
    path = write_model(tmp_path / of, with_values(forked[of], "half", value, value), hidden_size=4)
    pushed = registry.push("chat", path, author="ada", branch=branch)
    assert pushed.not_finite == {"half": (2, 5)}
    with pytest.raises(ModelInvalid, match=rf"{side}: half is not finite: 2 of 5 values"):
        registry.merge("chat", "tuned", author="ada", strategy=Strategy(strategy))
    assert registry.show("chat").entry.id == registry.show("chat", "v4" if branch == "main" else "v3").entry.id
    _, found = merged(registry, tmp_path, "tuned", Strategy("theirs"))
    assert int((~found["half"].isfinite()).sum()) == (2 if branch == "tuned" else 0)


def test_a_merge_does_not_make_numbers_that_are_too_large(registry, tmp_path):
    for branch, value in (("main", 0.0), ("tuned", 60_000.0)):
        path = write_model(tmp_path / branch, {"a": torch.full((4,), value, dtype=torch.float16)})
        registry.push("chat", path, author="ada", branch=branch)
    with pytest.raises(ModelInvalid, match=r"a comes to numbers that are too large for its type \(float16\)"):
        registry.merge("chat", "tuned", author="ada", strategy=Strategy("task", 2.0))


def test_an_adapter_with_values_that_are_not_finite_is_named(registry, forked, tmp_path):
    adapter, prefix = tmp_path / "adapter", "base_model.model.a"
    adapter.mkdir()
    weights = {f"{prefix}.lora_A.weight": torch.full((2, 4), float("nan")), f"{prefix}.lora_B.weight": torch.ones(6, 2)}
    save_file(weights, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 4}))
    with pytest.raises(ModelInvalid, match=r"adapter: a\.weight is not finite: 24 of 24 values"):
        registry.merge("chat", str(adapter), author="ada", strategy=Strategy("lora"))


def test_a_difference_says_where_values_are_not_finite(registry, forked, tmp_path):
    for weights in (with_values(forked["v3"], "half", float("nan"), float("inf")), forked["v3"]):
        registry.push("chat", write_model(tmp_path / "more", weights, hidden_size=4), author="ada")
    for before, after in (("v3", "v4"), ("v4", "v5")):
        found = registry.diff("chat", before, after)
        assert found.not_finite == {"model.safetensors": {"half": (2, 5)}}
        assert set(found.norms["model.safetensors"]) == {"a.weight", "count"}
    assert registry.diff("chat", "v3", "v5").not_finite == {}


def test_a_difference_of_large_numbers_is_a_number(registry, tmp_path):
    for value in (1e200, 3e200):
        path = write_model(tmp_path / "model", {"a": torch.full((4,), value, dtype=torch.float64)})
        registry.push("chat", path, author="ada")
    assert registry.diff("chat", "v1", "v2").norms["model.safetensors"]["a"] == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("name", "weight"), [("slerp", 0.5), ("linear", 1.5), ("task", float("nan")), ("task", 11.0), ("linear", -0.1)]
)
def test_a_strategy_is_checked_when_it_is_made(name, weight):
    with pytest.raises(InvalidRequest):
        Strategy(name, weight)


def test_how_much_each_tensor_changed(registry, forked):
    norms = registry.diff("chat", "v1", "v3").norms["model.safetensors"]
    was, now = forked["v1"]["a.weight"], forked["v3"]["a.weight"]
    assert norms["a.weight"] == pytest.approx(float((now - was).norm() / was.norm()))
    assert norms["count"] == 0
    assert set(norms) == {"a.weight", "half", "count"}


def test_what_is_said_of_both_goes_on(registry, tmp_path):
    for version, branch, value, said in (
        ("v1", "main", 0, {"license": "mit", "data": {"name": "a", "rows": 3}, "metrics": {"eval.x": 0.5}}),
        ("v2", "tuned", 1, {"license": "mit", "data": {"name": "b", "rows": 4}, "language": "en"}),
        ("v3", "main", 2, {"license": "mit", "data": {"name": "a", "rows": 5}, "metrics.eval.x": 0.6}),
    ):
        path = write_model(tmp_path / version, {"w": torch.full((4,), float(value))})
        registry.push("chat", path, author="ada", branch=branch, metadata=said)
    for strategy, rows in (("linear", {}), ("theirs", {"rows": 4})):
        registry.branch("chat", strategy, "v3")
        made = registry.merge("chat", "tuned", author="ada", branch=strategy, strategy=Strategy.wanted(strategy))
        found = dict(registry.show("chat", made.version).metadata)
        assert found.pop("merge")["strategy"] == strategy
        assert found == {"license": "mit", "language": "en", "data": {"name": "b", **rows}}


@pytest.mark.parametrize(
    ("name", "given", "counts"),
    [("linear", None, 0.5), ("task", None, 1.0), ("lora", None, 1.0), ("lora", 0.5, 0.5), ("linear", 0.3, 0.3)],
)
def test_how_much_of_theirs_counts_unless_told(name, given, counts):
    assert Strategy.wanted(name, given).weight == counts
    assert f"{counts:g} of theirs" in str(Strategy.wanted(name, given))


@pytest.mark.parametrize("name", ["clean", "ours", "theirs"])
def test_a_weight_that_nobody_looks_at_is_refused(name):
    assert str(Strategy.wanted(name)) == name
    with pytest.raises(InvalidRequest, match="leave it out"):
        Strategy.wanted(name, 0.3)
