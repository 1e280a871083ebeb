"""What `strata status` says in one line."""

import pytest

from pipelines.cli.status import wanted


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
