from types import SimpleNamespace

import pytest
from ray.exceptions import RaySystemError

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


@pytest.mark.parametrize(("code", "done"), [(None, []), (-9, ["buried", "started"]), (0, ["buried", "started"])])
def test_a_control_store_that_ended_is_started_again(code: int | None, done: list[str]) -> None:
    node = Node(code)
    assert head.revive(node) == bool(done)
    assert node.done == done


def test_packages_are_kept_once_the_control_store_answers_again() -> None:
    kept: dict[str, int] = {}

    class Store:
        up = False

        def _internal_kv_list(self, prefix: str) -> list[bytes]:
            if not self.up:
                raise RaySystemError("not yet")
            return [f"{prefix}1.zip".encode(), f"{prefix}2.zip".encode()]

        def _pin_runtime_env_uri(self, uri: str, *, expiration_s: int) -> None:
            kept[uri] = expiration_s

    store = Store()
    assert not head.keep_packages(store)
    store.up = True
    assert head.keep_packages(store)
    assert kept == dict.fromkeys(("gcs://_ray_pkg_1.zip", "gcs://_ray_pkg_2.zip"), head.FOR_EVER_SECONDS)
