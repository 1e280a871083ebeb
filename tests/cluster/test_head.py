from types import SimpleNamespace

import pytest

from cluster import head


@pytest.mark.parametrize(("wanted", "there", "cores"), [(None, 8, 8), (None, 2, 2), (4, 1, 4), (1, 8, 1)])
def test_ray_hands_out_what_is_there_or_what_was_set(wanted: int | None, there: int, cores: int) -> None:
    assert head.cores_of(wanted, there) == (cores, "")


def test_one_core_holds_the_starter_and_says_so() -> None:
    cores, note = head.cores_of(None, 1)
    assert cores == 2
    assert "take turns" in note


@pytest.mark.parametrize(("job", "following"), [("01000000", "02000000"), ("ff000000", "00010000")])
def test_the_next_driver_s_job_is_the_next_number(job: str, following: str) -> None:
    assert head.following(job) == following


class Node:
    """A head of Ray's, whose control store has ended or not."""

    def __init__(self, code: int | None) -> None:
        self.all_processes = {head.STORE: [SimpleNamespace(process=SimpleNamespace(poll=lambda: code))]}
        self.done: list[str] = []

    def kill_gcs_server(self, check_alive: bool) -> None:
        assert not check_alive
        self.done.append("buried")

    def start_gcs_server(self) -> None:
        self.done.append("started")


@pytest.mark.parametrize(
    ("code", "done"), [(None, []), (-9, ["buried", "told", "started"]), (0, ["buried", "told", "started"])]
)
def test_a_control_store_that_ended_is_started_again(code: int | None, done: list[str]) -> None:
    node = Node(code)
    assert head.revive(node, lambda: node.done.append("told")) == bool(done)
    assert node.done == done
