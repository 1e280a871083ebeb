"""`strata config`: what every setting is, and which flag, variable or line of the file made it so."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.errors import SettingsInvalid
from cluster.layers import Loaded
from pipelines.cli import show
from pipelines.settings import HOME, Settings, load

EXAMPLE = HOME / "strata.example.yaml"


def settle(file: Path | None, flags: Mapping[str, Any] | None = None) -> Loaded[Settings]:
    """The settings of this command: the one place where the environment is read."""
    return load(file, os.environ, flags)


def run(key: str, file: Path | None, *, as_json: bool) -> None:
    """Show one setting or all below it."""
    found = settle(file).explain(key)
    if as_json:
        rows = [{"key": one.key, "value": _plain(one.value), "source": one.source} for one in found]
        show.document(rows[0] if key and len(rows) == 1 else rows)
        return
    show.table(("key", "value", "from"), [(one.key, _plain(one.value), one.source) for one in found])
    if len(found) == 1 and found[0].meaning:
        show.line(f"[dim]{found[0].meaning}[/]")


def begin(file: Path, *, as_json: bool) -> None:
    """Write the example settings where there is no file yet."""
    try:
        with file.open("x") as new:
            new.write(EXAMPLE.read_text())
    except FileExistsError:
        raise SettingsInvalid(str(file), "an existing file", "name another with -f, or remove it") from None
    except OSError as wrong:
        raise SettingsInvalid(str(file), wrong.strerror or str(wrong), "name a file that can be written") from None
    if as_json:
        show.document({"file": str(file)})
    else:
        show.line(f"Wrote {file}: set the path of your model in it, then strata up")


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
