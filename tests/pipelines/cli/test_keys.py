import json
import stat
from pathlib import Path

import pytest

from cluster.errors import InvalidRequest, Unauthenticated
from cluster.security.keys import KeyRing
from cluster.settings import ClusterSettings
from pipelines.cli import keys


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClusterSettings:
    monkeypatch.delenv("STRATA_API_KEY", raising=False)
    return ClusterSettings(state_dir=tmp_path)


def test_the_first_key_is_made_once(cluster: ClusterSettings) -> None:
    keys.operator(cluster)
    first = keys.first(cluster)
    assert first is not None
    assert KeyRing(cluster.keys_file).verify(first).name == "first"
    assert keys.first(cluster) is None


def test_the_operators_key_is_private_and_lasts(cluster: ClusterSettings) -> None:
    key = keys.operator(cluster)
    assert stat.S_IMODE(cluster.operator_key_file.stat().st_mode) == 0o600
    assert keys.operator(cluster) == key == keys.mine(cluster)


def test_a_revoked_operators_key_is_replaced(cluster: ClusterSettings) -> None:
    key = keys.operator(cluster)
    ring = KeyRing(cluster.keys_file)
    ring.revoke(ring.verify(key).id)
    assert keys.operator(cluster) != key
    cluster.operator_key_file.unlink()
    keys.operator(cluster)
    assert [record.name for record in ring.records()] == ["operator"]


def test_a_key_in_the_environment_comes_first(cluster: ClusterSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unauthenticated):
        keys.mine(cluster)
    monkeypatch.setenv("STRATA_API_KEY", "sk-other")
    assert keys.mine(cluster) == "sk-other"


def test_a_key_says_how_urgent_its_requests_may_be(
    cluster: ClusterSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STRATA_CLUSTER__STATE_DIR", str(cluster.state_dir))
    keys.issue("nightly", "acme", "user", 20, None, as_json=True)
    key = json.loads(capsys.readouterr().out)["key"]
    assert KeyRing(cluster.keys_file).verify(key).priority == 20
    keys.listing(None, as_json=True)
    assert [record["priority"] for record in json.loads(capsys.readouterr().out)] == [20]
    with pytest.raises(InvalidRequest, match="--priority"):
        keys.issue("root", "acme", "user", -101, None, as_json=True)
