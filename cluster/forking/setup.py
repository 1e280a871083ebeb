"""Ray's first stage of a worker, `setup_worker.py`, without Ray: what it would become is asked for at once.

A raylet starts each worker by a script that imports Ray to read one JSON object, 0.5 s of a core, and then becomes what
a runtime environment names: where that is `forking.command`, this very process can ask. Everything else is left to the
original. Runs as a script of the node's own code, before that of the job is found, and so imports nothing of ours.
"""

import json
import os
import re
import runpy
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

CONTEXT, LANGUAGE = "--serialized-runtime-env-context", "--language"
ASKED = re.compile(r" -m (cluster\.forking\.ask) ([^\s']+) ([^\s']+)$")  # how `forking.command` ends
PLAIN = {"command_prefix", "env_vars", "py_executable", "override_worker_entrypoint", "java_jars"}


def main() -> None:
    """Ask for the worker, or become Ray's own script."""
    program, told = split(sys.argv[1:])
    try:
        context = json.loads(told.get(CONTEXT, "{}"))
        asked = wanted(context, told.get(LANGUAGE, "PYTHON"))
    except (TypeError, ValueError):
        asked = None
    if asked is None:
        original()
    folder, (module, *words) = asked
    if folder:
        os.chdir(folder)
    surround(context.get("env_vars") or {})
    sys.argv = [module, *words, *program]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def split(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The program with its arguments, and what only this stage is told, each as `--name=value` or `--name value`."""
    program: list[str] = []
    told: dict[str, str] = {}
    given = iter(arguments)
    for each in given:
        name, equals, value = each.partition("=")
        if name in (CONTEXT, LANGUAGE):
            told[name] = value if equals else next(given, "")
        else:
            program.append(each)
    return program, told


def wanted(context: Mapping[str, Any], language: str) -> tuple[str, list[str]] | None:
    """The folder to work in, the module that asks and its words; None for what is not plainly that."""
    found = ASKED.search(context.get("py_executable") or "")
    if found is None or language != "PYTHON" or context.keys() - PLAIN:
        return None
    if context.get("override_worker_entrypoint") or f"echo {sys.executable} " not in found.string:
        return None
    match context.get("command_prefix") or []:
        case []:
            return "", list(found.groups())
        case ["cd", str(folder), "&&"] if Path(folder).is_dir():
            return folder, list(found.groups())
        case _:
            return None


def surround(variables: Mapping[str, str]) -> None:
    """Set the environment as Ray does, and look for modules where `python -m` would from here."""
    ours, before = str(Path(__file__).parent), os.environ.get("PYTHONPATH", "").split(os.pathsep)
    for name, value in variables.items():
        os.environ[name] = re.sub(r"\$\{[A-Z0-9_]+\}", "", os.path.expandvars(value))
    after = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    rest = [each for each in sys.path if each not in (ours, *before)]
    sys.path[:] = [str(Path.cwd()), *(each for each in after if each), *rest]


def original() -> NoReturn:
    """Become the script that Ray has for this."""
    found = find_spec("ray")
    if found is None or found.origin is None:
        sys.exit("this node's Python has no Ray")
    script = Path(found.origin).parent / "_private" / "workers" / "setup_worker.py"
    os.execv(sys.executable, [sys.executable, str(script), *sys.argv[1:]])  # noqa: S606 — that is the purpose


if __name__ == "__main__":
    main()
