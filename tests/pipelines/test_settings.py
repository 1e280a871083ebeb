from pathlib import Path

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


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"models": []}, "at least one"),
        (
            {"models": [{"name": "a", "path": "x", "deterministic": True, "limits": {"block_tokens": 8}}]},
            "a multiple of 16, not 8",
        ),
        ({"models": [{"name": "a", "path": "x"}, {"name": "a", "path": "y"}]}, "two models are named 'a'"),
        ({"models": [{"name": "a", "path": "x", "replicas": 0}]}, "models.0.replicas"),
        ({"models": [{"name": "a b", "path": "x"}]}, "models.0.name"),
        ({"gateway": {"body_byte": 1}}, "did you mean gateway.body_bytes?"),
        ({"cluster": {"address": "10.0.0.1"}}, "an address is local, auto"),
        ({"cluster": {"host": ""}}, "cluster.host"),
    ],
)
def test_what_cannot_be_served_is_refused(values: dict[str, object], says: str) -> None:
    with pytest.raises(SettingsInvalid) as wrong:
        Settings.of(values)
    assert says in str(wrong.value)


def test_a_url_is_one_that_a_client_can_use() -> None:
    for host, url in (("0.0.0.0", "http://127.0.0.1:8000"), ("::1", "http://[::1]:8000"), ("a.b", "http://a.b:8000")):
        assert Settings.of({"cluster": {"host": host}}).cluster.url == url
