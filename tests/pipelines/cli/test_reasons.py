"""Serve's reports as they were seen, and the sentence in each."""

import pytest

from pipelines.cli.reasons import sentence

FAILED = """The deployment failed to start 3 times in a row. This may be due to a problem with its constructor. Error:
\x1b[36mray::ServeReplica:strata:model-a.initialize_and_get_metadata()\x1b[39m (pid=1, ip=127.0.0.1, actor_id=2)
  File "/usr/lib/python3.11/concurrent/futures/_base.py", line 449, in result
    return self.__get_result()
RuntimeError: Traceback (most recent call last):
  File "ray/serve/_private/replica.py", line 1917, in initialize
cluster.errors.ModelInvalid: /nope: there is no such folder; set the path of model a
"""
DIED = "Replica failed its health check. Error: ActorDiedError()"
FOREIGN = FAILED.replace("cluster.errors.ModelInvalid: /nope: there is no such folder; set the path of model a", "{}")


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ("", ""),
        (FAILED, "/nope: there is no such folder; set the path of model a"),
        (DIED, "a shard died or was lost; a new gang is being made"),
        (FOREIGN.format("torch.OutOfMemoryError: no room"), "OutOfMemoryError: no room"),
        (FOREIGN.format("KeyError: 'x'"), "KeyError: 'x'"),
        ("A replica's health check failed. This deployment will be UNHEALTHY until", "a shard died or was lost"),
        (
            "RuntimeError: HAProxy crashed during startup: [NOTICE] (1) : haproxy version is 2.8\n"
            "[ALERT] (1) : Starting proxy stats: cannot bind socket (Address already in use) for [127.0.0.1:8404]\n",
            "cannot bind socket (Address already in use) for [127.0.0.1:8404]",
        ),
        ("Upscaling from 1 to 2 replicas.", "Upscaling from 1 to 2 replicas."),
        (
            "\x1b[31mcluster.errors.ReplicaLost\x1b[0m: gone\nray.exceptions.ActorDiedError: x",
            "a shard died or was lost; a new gang",
        ),
        ("y" * 1000, "yyy"),
    ],
)
def test_the_useful_sentence(message: str, says: str) -> None:
    said = sentence(message)
    assert says in said if says else said == ""
    assert "\x1b" not in said and "\n" not in said and len(said) <= 300
