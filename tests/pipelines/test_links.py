"""Handles that find again what they stand for."""

from types import SimpleNamespace
from typing import Any

import pytest
import ray
import ray.serve.exceptions

from cluster.errors import Unavailable
from pipelines.links import Calls


@pytest.mark.parametrize(
    ("raised", "wanted"),
    [
        (ray.exceptions.ActorUnavailableError("gone", None), Unavailable),
        (ray.exceptions.RayActorError(), Unavailable),
        (ray.serve.exceptions.RayServeException("no replica"), Unavailable),
        (TimeoutError(), Unavailable),
        (ray.exceptions.RayTaskError("f", "trace", ValueError("its own")), ray.exceptions.RayTaskError),
    ],
)
async def test_who_decides_of_releases_may_be_away(raised: Exception, wanted: type[Exception]) -> None:
    async def fail(*_: Any) -> None:
        raise raised

    handle = SimpleNamespace(rollouts=SimpleNamespace(remote=fail))
    with pytest.raises(wanted):
        await Calls(handle).rollouts()
