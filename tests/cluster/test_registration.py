"""A node's start on a machine as slow as it likes, and a raylet that ends."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray._private.parameter import RayParams

from cluster.errors import NotReady
from cluster.registration import AGENT_PORTS, agent_ports, last_words, patient


def node(logs: Path, poll: Callable[[], int | None]) -> SimpleNamespace:
    raylet = SimpleNamespace(process=SimpleNamespace(poll=poll))
    return SimpleNamespace(
        **dict.fromkeys(AGENT_PORTS),
        get_session_dir_path=lambda: str(logs),
        all_processes={"raylet": [raylet]},
        gcs_address="a:1",
        node_id="n",
        get_logs_dir_path=lambda: str(logs),
    )


def test_a_raylet_that_lives_is_waited_for_however_long_it_takes(tmp_path: Path) -> None:
    looks: list[tuple[str, str]] = []

    def look(address: str, name: str) -> None:
        looks.append((address, name))
        if len(looks) < 10_000:  # at ten a second, a quarter of an hour
            raise RuntimeError("not known yet")

    begun: list[object] = []
    slow = node(tmp_path, lambda: None)
    patient(begun.append, look, rest=lambda: None)(slow)
    assert begun == [slow]
    assert len(looks) == 10_000
    assert set(looks) == {("a:1", "n")}


def test_a_raylet_that_ends_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "raylet.out").write_text("of another node\n")
    (tmp_path / "raylet.1.out").write_text(
        "[state-dump] 1\nno port for the agent\n\n*** Stack ***\n/raylet(+0x1) main\n[state-dump] 2\n"
    )
    polls = iter([None, None, 1])

    def look(*_: str) -> None:
        raise RuntimeError("not known yet")

    with pytest.raises(NotReady, match=r"status 1: raylet\.1\.out: no port for the agent"):
        patient(lambda _: None, look, rest=lambda: None)(node(tmp_path, lambda: next(polls)))


def test_no_words_at_all_say_where_they_would_be(tmp_path: Path) -> None:
    assert last_words(tmp_path) == f"nothing in {tmp_path}"


def test_every_agent_has_a_port_of_its_own_that_no_raylet_looks_for_in_a_file() -> None:
    ports = agent_ports()
    assert len(set(ports.values())) == len(ports) == 4
    assert all(ports.values())
    parameters = RayParams(**ports)
    assert {name: getattr(parameters, name) for name in ports} == ports


def test_the_files_that_a_raylet_looks_for_are_there_when_it_starts(tmp_path: Path) -> None:
    told = node(tmp_path, lambda: None)
    told.metrics_agent_port, told.dashboard_agent_listen_port = 4001, 4002
    seen: list[dict[str, str]] = []
    start = patient(
        lambda _: seen.append({path.name: path.read_text() for path in tmp_path.iterdir()}), lambda *_: None
    )
    start(told)
    assert seen == [{"metrics_agent_port_n": "4001", "dashboard_agent_listen_port_n": "4002"}]
