"""`strata routes ...`: every command about routes of models and its flags.

Imports nothing but typer, as `strata --help` has to answer at once.
"""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.flags import File, Json, Url

routes = typer.Typer(
    help="Routes from a model's name to its versions: weights, rules, a shadow.", rich_markup_mode=None,
    invoke_without_command=True,
)  # fmt: skip
Name = Annotated[str, typer.Argument(metavar="MODEL", help="As clients ask for it.")]


@routes.callback()
def listed(ctx: typer.Context, url: Url = None, file: File = None, json: Json = False) -> None:
    """Show who has which share of each model's users."""
    if ctx.invoked_subcommand is None:
        from pipelines.cli import routes as command

        command.listing(file, url, as_json=json)


@routes.command()
def show(model: Name, url: Url = None, file: File = None, json: Json = False) -> None:
    """Print a model's route as `set` takes it; --json also says who set it and when."""
    from pipelines.cli import routes as command

    command.shown(model, file, url, as_json=json)


@routes.command("set")
def put(
    model: Name,
    source: Annotated[Path, typer.Argument(metavar="FILE", help="YAML or JSON: weights, rules, shadow.")],
    url: Url = None,
    file: File = None,
    json: Json = False,
) -> None:
    """Set a model's route while it serves, whole: what FILE leaves out is as if the settings left it out."""
    from pipelines.cli import routes as command

    command.put(model, source, file, url, as_json=json)
