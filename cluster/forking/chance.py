"""Ray's ids in forks of a process that has imported Ray: each has to draw its own.

Ray draws them from one generator in its C++ part (src/ray/common/id.h, FillRandom), which is seeded when it is first
used. Forks that come after that draw the same ids as each other, and Ray ends processes that meet one of them twice.
Reading a class that is decorated as an actor draws one, and modules of Ray's own have such classes.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray
import ray.actor


class Drawn:
    """What `ray.actor` asks for the id of a class, drawn by the kernel."""

    @staticmethod
    def from_random() -> ray.ActorClassID:
        """An id of the same kind."""
        return ray.ActorClassID(os.urandom(ray.ActorClassID.size()))


@contextmanager
def untouched() -> Iterator[None]:
    """Inside, classes that are decorated leave Ray's generator alone."""
    ray.actor.ActorClassID = Drawn
    try:
        yield
    finally:
        ray.actor.ActorClassID = ray.ActorClassID


def apart() -> bool:
    """Whether two forks of this process draw two ids."""
    return draw() != draw()


def draw() -> bytes:
    """What a fork of this process draws first."""
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(sink, ray.TaskID.for_fake_task(ray.JobID.from_int(1)).binary())
        os._exit(0)
    os.close(sink)
    os.waitpid(child, 0)
    with open(source, "rb") as drawn:  # noqa: PTH123 — a pipe
        return drawn.read()
