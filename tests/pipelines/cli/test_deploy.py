"""What `strata deploy` says before it deploys; the rest is in tests/system."""

from pathlib import Path

import pytest

from cluster import runtime
from cluster.errors import Unavailable
from cluster.settings import ClusterSettings
from tests.pipelines.cli.conftest import strata


def test_settings_that_only_a_start_reads_are_named_before_what_they_would_have_made_fit(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = ClusterSettings(state_dir=home / "state", num_cpus=2)
    monkeypatch.setattr(runtime, "find", lambda _: runtime.Running("a:1", 1, settings=started.at_start))

    def join(*_: object) -> None:
        raise Unavailable("the local cluster", "this is a test")

    monkeypatch.setattr(runtime, "join", join)
    Path("strata.yaml").write_text("cluster: {num_cpus: 8}\n")
    assert strata(monkeypatch, "deploy", "-f", "strata.yaml") == 1
    said = capsys.readouterr().err
    assert "cluster.num_cpus is 8, and Strata was started with 2: `strata down`, then `strata up` has it count" in said
