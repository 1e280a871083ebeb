"""What `strata status` says in one line."""

import pytest

from pipelines.cli.status import stands, wanted


@pytest.mark.parametrize(
    ("gangs", "seconds", "says"),
    [
        (2, 1.0, "2 gangs wanted, of 0 to 4: queues at 150% of the target"),
        (1, 44.2, "1 gang wanted, of 0 to 4, decided 44 s ago: queues at 150% of the target"),
    ],
)
def test_how_many_gangs_are_wanted_and_why(gangs: int, seconds: float, says: str) -> None:
    decided = {"wanted": gangs, "reason": "queues at 150% of the target", "min": 0, "max": 4, "seconds_ago": seconds}
    assert wanted(decided) == says


def test_gangs_stand_on_nodes_of_which_few_are_named() -> None:
    gangs = [{"model": "a", "node": node} for node in "xxyzuvw"] + [{"model": "b", "node": "x"}]
    assert stands(gangs) == ["a: gangs 2 on x, 1 on y, 1 on z, 1 on u, 2 on 2 more nodes", "b: gangs 1 on x"]
    assert stands([]) == []


def test_gangs_say_which_version_they_serve() -> None:
    told = {"registry": "chat@prod", "version": "v7", "commit": "c" * 40, "digest": "0123456789abcdef"}
    assert stands([{"model": "a", "node": "x", "strata": told}]) == ["a: gangs 1 on x of chat@prod, v7 (0123456789ab)"]
