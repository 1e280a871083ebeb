import os
import shutil
import socket
from pathlib import Path

import pytest

from cluster import hardware


def test_a_processor_is_read_from_cpuinfo() -> None:
    text = "processor\t: 0\nmodel name\t: Some CPU @ 3GHz\nflags\t\t: fpu avx2 avx512f avx512_bf16\n\nprocessor\t: 1\n"
    assert hardware.processor_of(text) == ("Some CPU @ 3GHz", ("avx2", "avx512f", "avx512_bf16"))
    assert hardware.processor_of("Features\t: fp asimd bf16\n") == ("unknown", ("asimd", "bf16"))
    assert hardware.processor_of("") == ("unknown", ())


def test_memory_is_read_from_meminfo() -> None:
    assert hardware.memory_of("MemTotal:  8 kB\nMemFree: 1 kB\nMemAvailable:  4 kB\nHugePages_Total: 0\n") == (
        8192,
        4096,
    )
    assert hardware.memory_of("") == (0, 0)


def test_room_is_that_of_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    assert hardware.free_bytes(tmp_path / "not" / "yet") > 0


def test_a_port_is_free_until_somebody_listens() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert not hardware.port_is_free("127.0.0.1", listener.getsockname()[1])
    assert hardware.port_is_free("127.0.0.1", 0)


def test_this_machine_is_seen() -> None:
    machine = hardware.look()
    assert machine.cores >= 1
    assert machine.python >= (3, 11, 0)
    assert machine.memory > machine.memory_free > 0


def test_who_listens_on_a_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        problem = hardware.port_problem("127.0.0.1", port)
        assert f"process {os.getpid()}" in problem
        assert f"--http-port {port + 1}" in problem
        assert not hardware.port_is_free("127.0.0.1", port)
    assert hardware.port_problem("127.0.0.1", port) == ""


def test_a_host_of_another_machine_is_no_port_that_is_taken() -> None:
    assert "cannot listen on 192.0.2.1" in hardware.port_problem("192.0.2.1", 8000)  # RFC 5737: nobody's


@pytest.mark.parametrize(
    ("program", "fault"), [("/bin/false", "does not compile"), ("/nowhere/g++", "does not run"), ("g++", "")]
)
def test_the_compiler_is_tried(monkeypatch: pytest.MonkeyPatch, program: str, fault: str) -> None:
    if program == "g++" and not shutil.which(program):
        pytest.skip("this machine has no g++")
    monkeypatch.setenv("CXX", program)
    found, why = hardware.compiler()
    assert found == program
    assert fault in why and bool(fault) == bool(why)
