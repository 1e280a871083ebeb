"""How Ray's worker processes start that run our code: as forks of a process that has imported it.

Knows which modules they need and what the code's revision is. Knows nothing of how a fork is asked for.
"""

from cluster import forking
from pipelines import revision

PACKAGES = ("cluster", "actors", "pipelines")
# What a leader, a shard, the gateway and Serve's own processes import; others' modules are what takes the time. Any
# configuration of transformers brings what all of them import, 2 s in each rank that reads a model. That comes later:
# at a start the ranks do it side by side, while the first processes are at work already.
IMPORTED = ("ray", "torch", "deepspeed", "actors.shard", "pipelines.app")
LATER = ("actors.models.decoder", "transformers.models.llama.configuration_llama")


def words() -> list[str]:
    """The code's revision, then what of it and of others is imported before there is a worker."""
    return [revision.code(*PACKAGES)[:16], *IMPORTED, *(f"~{module}" for module in LATER)]


def python() -> str:
    """What Ray runs instead of Python: the `py_executable` of a runtime environment."""
    return forking.command(words())
