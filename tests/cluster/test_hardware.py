import socket
from pathlib import Path

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
