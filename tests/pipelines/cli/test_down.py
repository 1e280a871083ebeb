"""That a cluster is ended however it takes its leave."""

from pathlib import Path

import pytest

from cluster import runtime
from cluster.runtime import Running
from cluster.settings import ClusterSettings
from pipelines.cli import down, serving


@pytest.mark.parametrize("wrong", [KeyboardInterrupt, RuntimeError, KeyError, TimeoutError])
def test_what_cannot_drain_is_ended_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: type[BaseException]
) -> None:
    def fail() -> None:
        raise wrong

    monkeypatch.setattr(runtime, "find", lambda _: Running("a:1", 1))
    monkeypatch.setattr(runtime, "connect", lambda *_: None)
    monkeypatch.setattr(runtime, "disconnect", fail if wrong is KeyboardInterrupt else lambda: None)
    monkeypatch.setattr(runtime, "stop", lambda _: 7)
    monkeypatch.setattr(serving, "withdraw", fail)
    assert down.everything(ClusterSettings(state_dir=tmp_path)) == 7
