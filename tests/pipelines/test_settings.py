from pathlib import Path
from typing import Any

import pytest

from cluster.errors import SettingsInvalid
from pipelines.settings import HOME, Settings, load, locate


def test_without_a_file_the_starter_is_served_by_a_gang_of_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (model,) = load().settings.models
    assert (model.name, model.tensor_parallel_size) == ("strata-starter", 2)


def test_a_file_in_the_folder_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("strata.yaml").write_text("cluster: {http_port: 9001}")
    (found,) = load().explain("cluster.http_port")
    assert (found.value, found.source) == (9001, "strata.yaml:1")


def test_models_lie_beside_the_file_or_here_or_beside_the_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "settings" / "near").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "settings" / "s.yaml"
    assert locate("near", file) == str(tmp_path / "settings" / "near")
    assert locate("here", file) == str(tmp_path / "here")
    assert locate("pipelines", file) == str(HOME / "pipelines")
    assert locate("nowhere", file) == "nowhere"
    assert locate(str(tmp_path), file) == str(tmp_path)


def scaled(replicas: int | None = None, **scaling: object) -> dict[str, Any]:
    more = {} if replicas is None else {"replicas": replicas}
    return {"models": [{"name": "a", "path": "x", "scaling": scaling, **more}]}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"models": []}, "at least one"),
        (
            {"models": [{"name": "a", "path": "x", "deterministic": True, "limits": {"block_tokens": 8}}]},
            "models.0.limits.block_tokens: 8 is not accepted; `deterministic: true` wants a multiple of 16",
        ),
        (
            {"models": [{"name": "a", "path": "x"}, {"name": "a", "path": "y"}]},
            "models.1.name: \"a\" is not accepted; two models are named 'a'",
        ),
        ({"models": [{"name": "a", "path": "x", "replicas": 0}]}, "models.0.replicas"),
        ({"models": [{"name": "a b", "path": "x"}]}, "models.0.name"),
        (scaled(), "models.0.scaling.max: nothing is not accepted; it has to be set"),
        (scaled(min=3, max=2), "models.0.scaling.max: 2 is not accepted; it is at least min, 3"),
        (
            scaled(max=2, idle_seconds=9.0),
            "models.0.scaling.idle_seconds: 9.0 is not accepted; it ends the last gang, which min: 1 keeps",
        ),
        (scaled(max=2, wait_seconds=None, kv_used=None, running=None), "there is nothing to scale by"),
        (scaled(max=2, kv_used=1.5), "models.0.scaling.kv_used"),
        (scaled(max=2, least=1), "models.0.scaling.least"),
        (scaled(3, max=2), "models.0.replicas: 3 is not accepted; `scaling` begins with 1 to 2"),
        (scaled(1, min=2, max=3), "models.0.replicas: 1 is not accepted; `scaling` begins with 2 to 3"),
        (
            {"models": [{"name": "a", "path": "x", "spares": 1, "scaling": {"max": 2}}]},
            "models.0.spares: 1 is not accepted; they stand beside a fixed number of `replicas`",
        ),
        (
            {**scaled(min=0, max=1), "gateway": {"hold_seconds": 0}},
            "gateway.hold_seconds: 0 is not accepted; scaling.min: 0 of a",
        ),
        (
            {**scaled(min=0, max=1), "gateway": {"held_requests": 0}},
            "gateway.held_requests: 0 is not accepted; scaling.min: 0 of a",
        ),
        ({"gateway": {"body_byte": 1}}, "did you mean gateway.body_bytes?"),
        ({"cluster": {"address": "10.0.0.1"}}, "an address is local, auto"),
        ({"cluster": {"host": ""}}, "cluster.host"),
    ],
)
def test_what_cannot_be_served_is_refused(values: dict[str, object], says: str) -> None:
    with pytest.raises(SettingsInvalid) as wrong:
        Settings.of(values)
    assert says in str(wrong.value)


@pytest.mark.parametrize(
    ("values", "first"),
    [
        ({"models": [{"name": "a", "path": "x", "replicas": 2, "spares": 1}]}, 3),
        (scaled(max=4), 1),
        (scaled(min=0, max=4), 1),
        (scaled(min=2, max=4), 2),
        (scaled(3, min=2, max=4), 3),
        (scaled(max=1, min=1, wait_seconds=None, kv_used=None, running=None), 1),
    ],
)
def test_a_model_that_scales_begins_with_its_replicas_or_its_least(values: dict[str, Any], first: int) -> None:
    assert Settings.of(values).models[0].first_replicas == first


def test_bounds_can_be_set_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("strata.yaml").write_text("models: [{name: a, path: x, scaling: {max: 2}}]")
    loaded = load(None, {"STRATA_MODELS__0__SCALING__MAX": "5"})
    assert loaded.explain("models.0.scaling.max")[0].source == "environment STRATA_MODELS__0__SCALING__MAX"
    scaling = loaded.settings.models[0].scaling
    assert scaling is not None
    assert scaling.max == 5


def test_a_url_is_one_that_a_client_can_use() -> None:
    for host, url in (("0.0.0.0", "http://127.0.0.1:8000"), ("::1", "http://[::1]:8000"), ("a.b", "http://a.b:8000")):
        assert Settings.of({"cluster": {"host": host}}).cluster.url == url
