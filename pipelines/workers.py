"""How Ray's worker processes start that run our code: as forks of a process that has imported it.

Knows which modules they need and what the code's revision is. Knows nothing of how a fork is asked for.
"""

from cluster import forking
from pipelines import revision

PACKAGES = ("cluster", "actors", "pipelines")
# What a leader, a shard, the gateway and Serve's own processes import; others' modules are what takes the time. Any
# configuration of transformers brings what all of them import: 2 s in each rank that reads a model.
IMPORTED = (
    "ray",
    "torch",
    "deepspeed",
    "actors.shard",
    "actors.models.decoder",
    "transformers.models.llama.configuration_llama",
    "pipelines.app",
)


def words() -> list[str]:
    """The code's revision, then what of it and of others is imported before there is a worker."""
    return [revision.code(*PACKAGES)[:16], *IMPORTED]


def python() -> str:
    """What Ray runs instead of Python: the `py_executable` of a runtime environment."""
    return forking.command(words())
