"""`strata runs ...`: every command about runs of pipelines and its flags.

Imports nothing but typer, as `strata --help` has to answer at once.
"""

from typing import Annotated

import typer

from pipelines.cli.flags import File, Json

runs = typer.Typer(
    help="Runs of pipelines, which train, evaluate and release versions.", rich_markup_mode=None,
    invoke_without_command=True,
)  # fmt: skip
Declared = Annotated[str, typer.Argument(metavar="PIPELINE", help="Its name under `pipelines` of the settings.")]
Name = Annotated[str, typer.Argument(metavar="RUN", help="As `strata runs` lists it.")]
Detach = Annotated[bool, typer.Option("--detach", help="Do not wait for its end.")]


@runs.callback()
def listed(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 20,
    file: File = None,
    json: Json = False,
) -> None:
    """List the runs, the latest first, and how far they are."""
    if ctx.invoked_subcommand is None:
        from pipelines.cli import runs as command

        command.listing(limit, file, as_json=json)


@runs.command()
def start(
    pipeline: Declared,
    why: Annotated[str, typer.Option("-m", "--message", help="Why.")] = "by hand",
    request: Annotated[int | None, typer.Option("--request", min=1, help="For this one of the model.")] = None,
    detach: Detach = False,
    file: File = None,
    json: Json = False,
) -> None:
    """Begin a run of a pipeline, as a Ray job, and follow it. Ctrl-C leaves it running."""
    from pipelines.cli import runs as command

    raise typer.Exit(command.start(pipeline, why, request, file, detach=detach, as_json=json))


@runs.command()
def show(run: Name, file: File = None, json: Json = False) -> None:
    """Show a run: its steps, their times and numbers, what they made, where it comes from."""
    from pipelines.cli import runs as command

    command.shown(run, file, as_json=json)


@runs.command()
def follow(run: Name, file: File = None, json: Json = False) -> None:
    """Watch a run to its end."""
    from pipelines.cli import runs as command

    raise typer.Exit(command.follow(run, file, as_json=json))


@runs.command()
def resume(run: Name, detach: Detach = False, file: File = None, json: Json = False) -> None:
    """Take a run up that failed, waited or lost its driver; no step that is done is done again."""
    from pipelines.cli import runs as command

    raise typer.Exit(command.resume(run, file, detach=detach, as_json=json))


@runs.command()
def watch(
    pipelines: Annotated[
        list[str] | None, typer.Argument(metavar="PIPELINE...", help="Names.", show_default="show those that are")
    ] = None,
    file: File = None,
    json: Json = False,
) -> None:
    """Have pipelines begin runs by themselves, on what they declare under `on`, for as long as the cluster runs."""
    from pipelines.cli import watches as command

    command.watch(pipelines or [], file, as_json=json)


@runs.command()
def unwatch(
    pipelines: Annotated[list[str], typer.Argument(metavar="PIPELINE...", help="Names.")],
    file: File = None,
    json: Json = False,
) -> None:
    """Have pipelines begin no more runs; those that are under way go on."""
    from pipelines.cli import watches as command

    command.unwatch(pipelines, file, as_json=json)


@runs.command()
def cancel(run: Name, file: File = None, json: Json = False) -> None:
    """End a run; a rollout of it is taken back."""
    from pipelines.cli import runs as command

    command.cancel(run, file, as_json=json)
