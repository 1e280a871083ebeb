"""Where a figure came from: machine, commit and versions, beside every result."""

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
VECTORS = (
    "amx",
    "avx2",
    "avx512f",
    "avx512_bf16",
    "avx512_vnni",
)  # of what the processor can do, what figures depend on
BUSY = 1.0  # a load average above this: other work has a share in the figures


def quiet() -> float:
    """The load average before a measurement, with a warning where the machine is not at rest."""
    load = os.getloadavg()[0]
    if load > BUSY:
        print(f"warning: the load average is {load:.1f}, so these figures are not to be trusted", file=sys.stderr)
    return load


def provenance() -> dict[str, Any]:
    """What a reader must know to measure again. `+changes` after the commit: the engine's code had uncommitted ones."""
    return {
        "commit": _git("rev-parse", "HEAD") + ("+changes" if _git("status", "--porcelain", "actors") else ""),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            **_processor(),
            "cores": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
        },
        "versions": {name: version(name) for name in ("torch", "ray", "deepspeed", "transformers")},
        "load_average": os.getloadavg()[0],
    }


def write(name: str, result: dict[str, Any], **machine: Any) -> Path:
    """Keep a result, with more facts of the machine if there are; its file."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    facts = provenance()
    facts["machine"].update(machine)
    path.write_text(json.dumps({**facts, **result}, indent=2) + "\n")
    return path


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(
        command, cwd=RESULTS.parent.parent, capture_output=True, text=True, check=False
    ).stdout.strip()


def _processor() -> dict[str, Any]:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return {"processor": platform.processor(), "features": []}
    facts: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    vectors = [flag for flag in facts.get("flags", "").split() if flag.startswith(VECTORS)]
    return {
        "processor": f"{facts.get('vendor_id')} {facts.get('model name')} family {facts.get('cpu family')}",
        "features": vectors,
    }
