"""Let a Ray node take as long to start as its machine needs.

Ray gives the raylet of a new node 30 s to register, a constant of ray/_private/node.py, and the raylet gives as long to
its agents, Python processes that import for 3 s on an idle core and for minutes where others have the cores. Here what
lives is waited for and what ended is an error at once, with its last words. Knows a node by its processes alone.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.errors import NotReady

RAYLET = "raylet"
AGENT_SECONDS = 600  # of a raylet for its agents; one that ends is noticed at once
ENVIRONMENT = {"RAY_agent_register_timeout_ms": str(AGENT_SECONDS * 1000)}
LINES = 12  # of each log, which say why a raylet ended
LOOK_SECONDS = 0.1

Start = Callable[[Any], None]


def patient(
    start: Start, look: Callable[[str, str], object], rest: Callable[[], None] = lambda: time.sleep(LOOK_SECONDS)
) -> Start:
    """`Node.start_ray_processes` that returns when the node is registered. Raises NotReady where its raylet ended.

    `look(address, node)` raises RuntimeError until the control store knows the node.
    """

    def started(node: Any) -> None:
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


def last_words(logs: Path) -> str:
    """The ends of the latest raylet's logs and of its agents', on one line."""
    said = []
    for name in ("raylet*.err", "raylet*.out", "dashboard_agent*.log", "runtime_env_agent*.log"):
        found = max(logs.glob(name), key=lambda path: path.stat().st_mtime_ns, default=None)
        lines = found.read_text(errors="replace").splitlines() if found else []
        told = [line.strip() for line in lines if line.strip() and "[state-dump]" not in line][-LINES:]
        if found and told:
            said.append(f"{found.name}: {' | '.join(told)}")
    return "; ".join(said) or f"nothing in {logs}"
