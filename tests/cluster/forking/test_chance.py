"""Forks of a process that has imported Ray draw ids of their own."""

import subprocess
import sys

LOOK = """
import importlib, sys
from cluster.forking import chance
from pipelines.workers import IMPORTED, LATER
with chance.untouched():
    for module in (*IMPORTED, *LATER):
        importlib.import_module(module)
assert chance.apart()
import ray
ray.remote(type("Actor", (), {}))
assert not chance.apart(), "what the guard is for"
"""


def test_what_workers_import_draws_no_id_and_the_guard_would_tell() -> None:
    """In a process of its own: this one has drawn many."""
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
