"""Merges of whole versions: what each side changed is there afterwards, or somebody is asked."""

import json
import subprocess

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from actors.registry.desk import Desk
from actors.registry.merging import Strategy
from actors.registry.requests import Requirements, State
from actors.registry.signing import Signer
from cluster.errors import Conflict, InvalidRequest, MergeConflict, ModelInvalid
from tests.actors.registry.conftest import write_model

SETTLING = ("ours", "theirs")


class Place:
    """A model of which main and tuned go on apart."""

    def __init__(self, registry, folder):
        self.registry, self.folder = registry, folder
        torch.manual_seed(0)
        self.base = {name: torch.randn(3, 2) for name in ("a", "b", "c")}
        self.push("main")
        registry.branch("chat", "tuned", "v1")

    def push(self, branch, weights=None, files=None, config=None, shards=None):
        """The first version with some tensors and files changed; None removes one."""
        path = self.folder / f"{branch}{len(list(self.folder.iterdir()))}"
        write_model(path, self.of(weights), hidden_size=2, **(config or {}))
        (path / "README.md").write_text("first\n")
        for name, text in (files or {}).items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).unlink(missing_ok=True)
            if text is not None:
                (path / name).write_text(text)
        if shards:
            (path / "model.safetensors").unlink()
            held = {name: file for file, names in shards.items() for name in names}
            for file, names in shards.items():
                save_file({name: self.of(weights)[name] for name in names}, path / file, metadata={"format": "pt"})
            index = {"metadata": {"total_size": 0}, "weight_map": held}
            (path / "model.safetensors.index.json").write_text(json.dumps(index))
        return self.registry.push("chat", path, author="ada", branch=branch).version

    def of(self, weights=None):
        changed = {**self.base, **(weights or {})}
        return {name: tensor.clone() for name, tensor in changed.items() if tensor is not None}

    def merge(self, strategy="clean", source="tuned", branch="main", weight=0.5):
        made = self.registry.merge("chat", source, author="ada", branch=branch, strategy=Strategy(strategy, weight))
        assert self.registry.fsck() == []
        out = self.folder / f"out{made.version}"
        self.registry.checkout("chat", made.version, out)
        return made, out


@pytest.fixture
def place(registry, tmp_path):
    (tmp_path / "folders").mkdir()
    return Place(registry, tmp_path / "folders")


def same(found, wanted):
    assert set(found) == set(wanted)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


NEW = torch.full((3, 2), 7.0)
OTHER = torch.full((3, 2), 8.0)


def test_what_each_side_changed_is_there(place):
    place.push("main", {"a": NEW}, {"notes/main.md": "m", "README.md": None})
    place.push("tuned", {"b": OTHER}, {"notes/tuned.md": "t"}, {"rope_theta": 2})
    made, out = place.merge()
    same(load_file(out / "model.safetensors"), place.of({"a": NEW, "b": OTHER}))
    assert json.loads((out / "config.json").read_text())["rope_theta"] == 2
    assert sorted(path.name for path in (out / "notes").iterdir()) == ["main.md", "tuned.md"]
    assert not (out / "README.md").exists()
    assert made.stored == 0, "no weight was read or written"
    shown = place.registry.show("chat", made.version)
    assert shown.entry.parents == tuple(place.registry.show("chat", name).entry.id for name in ("v2", "v3"))
    assert shown.metadata["merge"]["strategy"] == "clean"


def test_where_only_the_source_went_on_it_is_the_source(place):
    place.push("tuned", {"a": NEW}, {"README.md": "second"})
    made, _ = place.merge()
    found = place.registry.diff("chat", "v2", made.version)
    assert (found.added, found.removed, found.changed) == ((), (), ("strata.json",)), "but for what is said of it"
    with pytest.raises(Conflict, match="in main already"):
        place.merge()


@pytest.mark.parametrize("strategy", SETTLING)
def test_what_both_changed_is_named_and_a_strategy_decides(place, strategy):
    sides = {"ours": ("main", NEW), "theirs": ("tuned", OTHER)}
    for branch, value in sides.values():
        place.push(branch, {"a": value, "b": value, branch: value}, {"README.md": branch, f"{branch}.md": "x"})
    tip = place.registry.show("chat").entry.id
    with pytest.raises(MergeConflict) as refused:
        place.merge()
    assert refused.value.clashes == (
        "README.md, which both changed", "2 tensors (a, b) of model.safetensors, which both changed"
    )  # fmt: skip
    assert "strategy ours or theirs" in str(refused.value)
    assert place.registry.show("chat").entry.id == tip
    assert place.registry.gc() == 0

    _, out = place.merge(strategy)
    branch, value = sides[strategy]
    same(load_file(out / "model.safetensors"), place.of({"a": value, "b": value, "main": NEW, "tuned": OTHER}))
    assert (out / "README.md").read_text() == branch
    assert (out / "main.md").is_file()
    assert (out / "tuned.md").is_file()


@pytest.mark.parametrize(("removes", "strategy"), [(one, how) for one in ("main", "tuned") for how in SETTLING])
def test_what_one_side_removed_and_the_other_changed(place, removes, strategy):
    keeps = {"main": "tuned", "tuned": "main"}[removes]
    place.push(removes, files={"README.md": None})
    place.push(keeps, files={"README.md": "second"})
    gone = {"main": "target", "tuned": "source"}
    with pytest.raises(MergeConflict, match=f"README.md, which the {gone[removes]} removed and the {gone[keeps]} ch"):
        place.merge()
    _, out = place.merge(strategy)
    assert (out / "README.md").exists() == (keeps == {"ours": "main", "theirs": "tuned"}[strategy])


def test_a_conflict_is_settled_by_hand_as_the_refusal_says(place):
    place.push("main", files={"README.md": "main"})
    place.push("tuned", {"a": NEW}, {"README.md": "tuned"})
    with pytest.raises(MergeConflict, match="merge main into tuned with ours, push to tuned what it is to be"):
        place.merge()
    place.merge("ours", source="main", branch="tuned")
    place.push("tuned", {"a": NEW}, {"README.md": "of both"})
    _, out = place.merge()
    assert (out / "README.md").read_text() == "of both"


@pytest.mark.parametrize("strategy", ["linear", "task"])
def test_arithmetic_is_of_weights_and_all_else_is_merged(place, strategy):
    place.push("main", {"a": NEW}, {"main.md": "m"})
    place.push("tuned", {"a": OTHER, "b": OTHER}, {"tuned.md": "t"}, {"rope_theta": 2})
    _, out = place.merge(strategy, weight=0.25)
    found, start = load_file(out / "model.safetensors"), place.base
    if strategy == "linear":
        wanted = {"a": 0.75 * NEW + 0.25 * OTHER, "b": 0.75 * start["b"] + 0.25 * OTHER, "c": start["c"]}
    else:
        wanted = {"a": NEW + 0.25 * (OTHER - start["a"]), "b": start["b"] + 0.25 * (OTHER - start["b"])}
        wanted["c"] = start["c"]
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor)
    assert torch.equal(found["c"], start["c"])
    assert (out / "tuned.md").is_file()
    assert json.loads((out / "config.json").read_text())["rope_theta"] == 2


@pytest.mark.parametrize(
    ("strategy", "ours", "theirs"), [("clean", "a", "b"), ("clean", "x", "y"), ("linear", "a", "b"), ("task", "a", "a")]
)
def test_progress_comes_to_the_size_of_the_model(place, strategy, ours, theirs):
    done = []
    place.push("main", {ours: NEW}, {"main.md": "m"})
    place.push("tuned", {theirs: OTHER}, {"tuned.md": "t"})
    how = Strategy(strategy)
    made = place.registry.merge("chat", "tuned", author="ada", strategy=how, progress=done.append)
    assert sum(done) == made.size
    assert len(done) > 4


def test_arithmetic_decides_nothing_but_weights(place):
    place.push("main", {"a": NEW}, {"README.md": "main"})
    place.push("tuned", {"a": OTHER}, {"README.md": "tuned"})
    with pytest.raises(MergeConflict) as refused:
        place.merge("linear")
    assert refused.value.clashes == ("README.md, which both changed",)


def test_architectures_are_not_mixed(place):
    place.push("main", {"a": NEW}, {"main.md": "m"})
    place.push("tuned", {"b": NEW}, config={"model_type": "gemma"})
    for strategy in ("clean", "linear", "task"):
        with pytest.raises(ModelInvalid, match=r"model_type 'gemma' where ours has 'llama'; .* ours or theirs"):
            place.merge(strategy)


@pytest.mark.parametrize("strategy", SETTLING)
def test_of_two_architectures_one_side_can_be_taken_whole(place, strategy):
    place.push("main", {"a": NEW}, {"main.md": "m"})
    place.push("tuned", {"b": NEW, "d": OTHER}, {"tuned.md": "t"}, config={"model_type": "gemma"})
    _, out = place.merge(strategy)
    ours = strategy == "ours"
    same(load_file(out / "model.safetensors"), place.of({"a": NEW} if ours else {"b": NEW, "d": OTHER}))
    assert json.loads((out / "config.json").read_text())["model_type"] == ("llama" if ours else "gemma")
    assert ((out / "main.md").exists(), (out / "tuned.md").exists()) == (ours, not ours)


def test_one_side_may_bring_another_architecture_whole(place):
    place.push("main", files={"main.md": "m"})
    place.push("tuned", {"a": torch.ones(5), "d": NEW, "b": None}, config={"vocab_size": 9})
    _, out = place.merge()
    same(load_file(out / "model.safetensors"), {"a": torch.ones(5), "c": place.base["c"], "d": NEW})
    assert (out / "main.md").is_file()


@pytest.mark.parametrize("theirs", [torch.ones(4), NEW.half(), None])
def test_a_tensor_that_became_two_kinds_is_refused_by_any_strategy(place, theirs):
    place.push("main", {"a": NEW})
    place.push("tuned", {"a": theirs})
    for strategy in ("clean", *SETTLING, "linear", "task"):
        with pytest.raises(ModelInvalid, match=r"has (a as .*|no a) where ours has F32"):
            place.merge(strategy)


def test_a_head_is_made_where_both_sides_added_tensors(place):
    place.push("main", {"x": torch.ones(3).bfloat16(), "b": None})
    place.push("tuned", {"y": torch.arange(5), "c": OTHER})
    made, out = place.merge()
    wanted = place.of({"x": torch.ones(3).bfloat16(), "y": torch.arange(5), "b": None, "c": OTHER})
    same(load_file(out / "model.safetensors"), wanted)
    assert 0 < made.stored < 1000
    with safe_open(out / "model.safetensors", "pt") as opened:
        assert opened.metadata() is None
    again = place.registry.push("chat", out, author="ada", branch="copy")
    found = place.registry.diff("chat", made.version, again.version)
    assert (found.added, found.removed, found.changed) == ((), (), ("strata.json",)), "but for what is said of it"


def test_a_new_head_says_what_that_of_ours_said(place):
    for branch, name in (("main", "x"), ("tuned", "y")):
        place.push(branch, {name: NEW}, shards={"model.safetensors": ["a", "b", "c", name]})
    _, out = place.merge()
    with safe_open(out / "model.safetensors", "pt") as opened:
        assert opened.metadata() == {"format": "pt"}
        assert set(opened.keys()) == {"a", "b", "c", "x", "y"}


def test_an_index_that_both_changed_is_made_of_what_there_is(place):
    shards = {"m-1.safetensors": ["a"], "m-2.safetensors": ["b", "c"]}
    place.push("main", shards=shards)
    place.merge("theirs", source="main", branch="tuned")
    place.push("main", {"x": NEW}, shards=shards | {"m-1.safetensors": ["a", "x"]})
    place.push("tuned", {"y": OTHER}, shards=shards | {"m-2.safetensors": ["b", "c", "y"]})
    for strategy in ("clean", *SETTLING):
        place.registry.branch("chat", strategy, "main")
        _, out = place.merge(strategy, branch=strategy)
        index = json.loads((out / "model.safetensors.index.json").read_text())
        held = {"a": 1, "x": 1, "b": 2, "c": 2, "y": 2}
        assert index["weight_map"] == {name: f"m-{number}.safetensors" for name, number in held.items()}
        assert index["metadata"]["total_size"] == 5 * 24


def test_a_tensor_does_not_come_to_stand_in_two_files(place):
    place.push("main", shards={"m-1.safetensors": ["a", "b"], "m-2.safetensors": ["c"]})
    place.push("tuned", shards={"n-1.safetensors": ["a"], "n-2.safetensors": ["b", "c"]})
    with pytest.raises(ModelInvalid, match="has a in another file than ours"):
        place.merge("theirs")


def test_no_name_comes_to_look_like_another(place):
    place.push("main", files={"Notes": "m"})
    place.push("tuned", files={"notes": "t"})
    for strategy in ("clean", *SETTLING, "linear"):
        with pytest.raises(ModelInvalid, match="Notes: looks like notes of the other side"):
            place.merge(strategy)


def test_a_name_is_no_file_and_folder(place):
    place.push("main", files={"notes": "m"})
    place.push("tuned", files={"notes/tuned.md": "t"})
    for strategy in ("clean", *SETTLING, "linear"):
        with pytest.raises(ModelInvalid, match="notes: is a file on one side and a folder on the other"):
            place.merge(strategy)


def test_a_file_that_grew_until_it_is_cut_is_one_file(place):
    place.push("tuned", files={"README.md": "x" * (2 << 20)})
    place.push("main", files={"main.md": "m"})
    _, out = place.merge()
    assert (out / "README.md").stat().st_size == 2 << 20
    place.push("main", files={"README.md": "short"})
    place.push("tuned", files={"README.md": "y" * (2 << 20)})
    with pytest.raises(MergeConflict, match=r"on README\.md, which both changed\. "):
        place.merge()


def test_versions_that_have_nothing_in_common(registry, tmp_path):
    for branch, value in (("one", 1.0), ("other", 2.0)):
        path = write_model(tmp_path / branch, {"a": torch.full((4,), value), branch: torch.ones(2)})
        (path / f"{branch}.md").write_text("x")
        registry.push("chat", path, author="ada", branch=branch)
    with pytest.raises(MergeConflict) as refused:
        registry.merge("chat", "other", author="ada", branch="one")
    assert refused.value.clashes == ("1 tensor (a) of model.safetensors, which both changed",)
    with pytest.raises(ModelInvalid, match="has no one where ours has"):
        registry.merge("chat", "other", author="ada", branch="one", strategy=Strategy("task"))
    made = registry.merge("chat", "other", author="ada", branch="one", strategy=Strategy("theirs"))
    assert {"one.md", "other.md"} <= set(registry.show("chat", made.version).files)
    assert registry.fsck() == []


def test_the_latest_common_versions_as_git_has_them(place, tmp_path):
    def bases():
        history = place.registry.history("chat")
        found = history.bases(*(history.resolve(name) for name in ("main", "tuned")))
        line = ["git", "--git-dir", str(tmp_path / "registry/models/chat.git"), "merge-base", "--all", "main", "tuned"]
        wanted = subprocess.run(line, check=True, capture_output=True, text=True).stdout.split()
        assert sorted(found) == sorted(wanted)
        return len(found)

    assert bases() == 1
    place.push("main", {"a": NEW})
    place.push("tuned", {"b": NEW})
    assert bases() == 1
    before = place.registry.show("chat", "main").entry.id
    place.merge(source="tuned", branch="main")
    place.merge(source=before[:12], branch="tuned")
    assert bases() == 2
    place.push("main", {"a": NEW, "b": NEW}, {"main.md": "m"})
    place.push("tuned", {"a": NEW, "b": NEW}, {"tuned.md": "t"})
    _, out = place.merge()
    same(load_file(out / "model.safetensors"), place.of({"a": NEW, "b": NEW}))
    assert {"main.md", "tuned.md"} <= {path.name for path in out.iterdir()}


def test_where_each_was_merged_into_the_other_and_decided_otherwise_somebody_is_asked(place):
    place.push("main", files={"README.md": "main"})
    place.push("tuned", files={"README.md": "tuned"})
    before = place.registry.show("chat", "main").entry.id
    place.merge("ours", source="tuned", branch="main")
    place.merge("ours", source=before[:12], branch="tuned")
    with pytest.raises(MergeConflict, match=r"README\.md, which both changed"):
        place.merge()


def test_a_version_that_nobody_trusted_has_signed_is_not_merged(place, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    history = place.registry.history("chat")
    tip = history.resolve("tuned")
    forged = history.files(tip) | {"README.md": b"forged"}
    commit = history.commit(forged, (tip,), "ada", 0, "Push", Signer(tmp_path / "elsewhere").sign)
    history.move("refs/heads/tuned", commit, tip)
    with pytest.raises(ModelInvalid, match="not signed by a key"):
        place.merge()


def test_a_merge_request_says_what_has_to_be_decided(place):
    place.push("main", {"a": NEW}, {"README.md": "main"})
    place.push("tuned", {"a": OTHER}, {"README.md": "tuned"})
    desk = Desk(place.registry, Requirements(0))
    number = desk.open("chat", "tuned", "Better", author="ada")
    found, missing = desk.show("chat", number)
    assert found.strategy == "clean"
    assert missing == [
        "a decision on README.md, which both changed",
        "a decision on 1 tensor (a) of model.safetensors, which both changed",
    ]
    with pytest.raises(MergeConflict):
        desk.merge("chat", number, principal="bob")
    assert desk.show("chat", number)[0].state is State.OPEN
    other = desk.open("chat", "tuned", "Better", author="ada", strategy=Strategy("theirs"))
    assert desk.show("chat", other)[1] == []
    desk.merge("chat", other, principal="bob")
    assert desk.show("chat", number)[1] == [], "what is merged already needs no decision"

    place.registry.branch("chat", "odd", "v1")
    place.push("odd", {"a": torch.ones(4)})
    (said,) = desk.show("chat", desk.open("chat", "odd", "Odd", author="ada"))[1]
    assert "versions that can be merged" in said
    assert "has a as F32 [4] where ours has F32 [3, 2]" in said
    place.registry.branch("chat", "old", "v1")
    (said,) = desk.show("chat", desk.open("chat", "old", "Old", author="ada"))[1]
    assert "in main already" in said


def test_nothing_but_strategies():
    with pytest.raises(InvalidRequest, match="take one of clean, ours, theirs, linear, task, lora"):
        Strategy("recursive")
