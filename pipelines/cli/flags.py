"""Flags that commands share.

Imports nothing but typer, as `strata --help` has to answer at once.
"""

from pathlib import Path
from typing import Annotated

import typer

File = Annotated[
    Path | None, typer.Option("-f", "--file", help="The settings file.", show_default="strata.yaml if there is one")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Url = Annotated[
    str | None, typer.Option("--url", help="A gateway somewhere else.", show_default="the one that the settings name")
]
Port = Annotated[int | None, typer.Option("--http-port", help="Port of the gateway.")]
Model = Annotated[str | None, typer.Option("--model", help="Which model.", show_default="the first")]
