"""Let a Ray node take as long to start as its machine needs.

The raylet of a new node waits 15 s for files in which its agents write the ports that they took (Ray 2.60,
node_manager.cc), and ends without them; the agents are Python processes that import for 3 s on an idle core and for
minutes where others have the cores. So the agents are given ports and the files are there before. Ray then gives the
raylet 30 s to register, a constant of ray/_private/node.py: here what lives is waited for and what ended is an error at
once, with its last words. Knows a node by its processes and ports alone.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.errors import NotReady
from cluster.loopback import free_ports

RAYLET = "raylet"
LINES = 12  # of each log, which say why a raylet ended
LOOK_SECONDS = 0.1
_STACK, _DUMP = ("/", "***"), "[state-dump]"  # what says nothing of why

AGENT_PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")

Start = Callable[[Any], None]


def agent_ports() -> dict[str, int]:
    """RayParams' ports of a node's agents, free ones."""
    return dict(zip(AGENT_PORTS, free_ports(len(AGENT_PORTS)), strict=True))


def patient(
    start: Start, look: Callable[[str, str], object], rest: Callable[[], None] = lambda: time.sleep(LOOK_SECONDS)
) -> Start:
    """`Node.start_ray_processes` that returns when the node is registered. Raises NotReady where its raylet ended.

    `look(address, node)` raises RuntimeError until the control store knows the node.
    """

    def started(node: Any) -> None:
        foretell(node)
        start(node)
        raylet = node.all_processes[RAYLET][0].process
        while True:
            ended = raylet.poll()  # before the look: who registers and ends at once was up
            try:
                look(node.gcs_address, node.node_id)
            except RuntimeError:
                if ended is not None:
                    words = last_words(Path(node.get_logs_dir_path()))
                    raise NotReady("Ray", f"its raylet ended with status {ended}: {words}") from None
                rest()
            else:
                return

    return started


def foretell(node: Any) -> None:
    """Write the files of the ports that the agents of `node` were given, as they will themselves."""
    for name in AGENT_PORTS:
        port = getattr(node, name)
        if port:
            Path(node.get_session_dir_path(), f"{name}_{node.node_id}").write_text(str(port))


def last_words(logs: Path) -> str:
    """The ends of the latest raylet's logs and of its agents', on one line."""
    said = []
    for name in ("raylet*.err", "raylet*.out", "dashboard_agent*.log", "runtime_env_agent*.log"):
        found = max(logs.glob(name), key=lambda path: path.stat().st_mtime_ns, default=None)
        lines = found.read_text(errors="replace").splitlines() if found else []
        told = [line.strip() for line in lines if line.strip() and not line.startswith(_STACK) and _DUMP not in line][
            -LINES:
        ]
        if found and told:
            said.append(f"{found.name}: {' | '.join(told)}")
    return "; ".join(said) or f"nothing in {logs}"
