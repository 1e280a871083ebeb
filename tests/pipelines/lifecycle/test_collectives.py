import sys

import deepspeed
import pytest

from pipelines.lifecycle import collectives


@pytest.mark.parametrize("fails", [False, True])
def test_workers_meet_with_what_is_compiled_and_deepspeed_is_as_before(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    backend, built = sys.modules["deepspeed.comm.torch"], []
    before = backend.build_shm_op
    monkeypatch.setattr(collectives, "shm_operator", lambda build: built.append(build) or "the op")

    def init_distributed(**how: object) -> None:
        assert how["dist_backend"] == "gloo"
        assert backend.build_shm_op() == "the op"
        if fails:
            raise RuntimeError("nobody came")

    monkeypatch.setattr(deepspeed, "init_distributed", init_distributed)
    if fails:
        with pytest.raises(RuntimeError, match="nobody came"):
            collectives.join()
    else:
        collectives.join()
    assert built == [before]
    assert backend.build_shm_op is before
