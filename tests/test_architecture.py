"""Rules of the house that a program can hold: where imports point, who may import Ray, what files are called."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("cluster", "actors", "pipelines")  # each may import those before it and itself

# The files that may import Ray, here and nowhere else; a room without Ray is tested without a cluster.
RAY = {
    "actors/replica.py",
    "cluster/forking/chance.py",
    "cluster/head.py",
    "cluster/packages.py",
    "cluster/runtime.py",
    "pipelines/app.py",
    "pipelines/chaos/stage.py",
    "pipelines/cli/serving.py",
    "pipelines/cli/status.py",
    "pipelines/driver.py",
    "pipelines/lifecycle/jobs.py",
    "pipelines/lifecycle/train.py",
    "pipelines/links.py",
    "pipelines/places.py",
    "pipelines/scaler.py",
}


def files() -> list[Path]:
    return sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))


def name_of(path: Path) -> str:
    """The module that a file is."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, everywhere: bool = True) -> Iterator[str]:
    """Modules that a file imports; without `everywhere`, only those imported when it is loaded."""
    tree = ast.parse(path.read_text("utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    later = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if not everywhere and id(node) in later | typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", files(), ids=name_of)
def test_imports_point_down(path: Path) -> None:
    layer = LAYERS.index(path.relative_to(ROOT).parts[0])
    above = set(LAYERS[layer + 1 :]) | {"tests", "benchmarks"}
    assert not [name for name in imported(path) if name.partition(".")[0] in above]


def test_ray_is_imported_by_these_files_alone() -> None:
    found = {
        str(path.relative_to(ROOT))
        for path in files()
        if any(name.partition(".")[0] == "ray" for name in imported(path))
    }
    assert found == RAY


def test_no_module_imports_itself_by_way_of_others() -> None:
    modules = {name_of(path): path for path in files()}
    graph = {
        name: {found for found in imported(path, everywhere=False) if found in modules and found != name}
        for name, path in modules.items()
    }
    # `from package import module` names the package too, whose __init__ is often empty: count it only if it imports.
    bare = {name for name, path in modules.items() if path.name == "__init__.py" and not graph[name]}
    try:
        TopologicalSorter({name: found - bare for name, found in graph.items()}).prepare()
    except CycleError as cycle:
        pytest.fail(" -> ".join(cycle.args[1]))


@pytest.mark.parametrize("path", files(), ids=name_of)
def test_no_file_hides_a_standard_module_or_is_a_drawer(path: Path) -> None:
    # Ray puts the working directory first on every worker's path.
    assert path.stem not in sys.stdlib_module_names - {"__main__"}
    assert path.stem not in {"utils", "util", "helpers", "common", "core", "misc"}


@pytest.mark.parametrize("path", files(), ids=name_of)
def test_every_module_says_what_it_owns(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    assert not tree.body or ast.get_docstring(tree)


def test_what_computes_nothing_does_without_torch() -> None:
    """The gateway and the command line: torch takes seconds and 200 MB."""
    said = "import sys, pipelines.app, pipelines.cli.serving, pipelines.cli.commands; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", said], check=False, cwd=ROOT).returncode == 0
