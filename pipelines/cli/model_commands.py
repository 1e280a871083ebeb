"""`strata models ...`: every command about versions of models and its flags.

Imports nothing but typer, as `strata --help` has to answer at once.
"""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.flags import File, Json, Url

models = typer.Typer(
    help="Models: those that are served, and versions of them in the registry.", rich_markup_mode=None,
    invoke_without_command=True,
)  # fmt: skip
merge_requests = typer.Typer(
    help="Ask that a branch goes into another, with approvals and figures.", no_args_is_help=True, rich_markup_mode=None
)
models.add_typer(merge_requests, name="merge-request")


@models.callback()
def served(ctx: typer.Context, file: File = None, url: Url = None, json: Json = False) -> None:
    """List the models that are served; the commands below are about versions, which MODEL@NAME names."""
    if ctx.invoked_subcommand is None:
        from pipelines.cli import models as command

        command.run(file, url, as_json=json)


Reference = Annotated[str, typer.Argument(metavar="MODEL[@NAME]", help="A version, tag, branch or alias of a model.")]


@models.command("push")
def push_version(
    path: Annotated[Path, typer.Argument(help="A Hugging Face folder.")],
    name: Annotated[str, typer.Option("--name", help="The model that it is a version of.")],
    branch: Annotated[str, typer.Option("--branch", help="Whose tip it becomes.")] = "main",
    meta: Annotated[list[str] | None, typer.Option("--meta", help="key=value, as often as you like.")] = None,
    facts: Annotated[
        Path | None, typer.Option("--facts", help="A JSON or YAML file with data, hyper-parameters, metrics, lineage.")
    ] = None,
    message: Annotated[str, typer.Option("-m", "--message", help="Why.")] = "",
    file: File = None,
    json: Json = False,
) -> None:
    """Keep a folder as the next version of a model; what another version has already is not stored again."""
    from pipelines.cli import versions

    versions.push(path, name, branch, meta or [], message, file, as_json=json, described=facts)


@models.command("log")
def log_versions(model: Reference, file: File = None, json: Json = False) -> None:
    """List a version and those before it."""
    from pipelines.cli import versions

    versions.log(model, file, as_json=json)


@models.command("show")
def show_version(model: Reference, file: File = None, json: Json = False) -> None:
    """Show one version: who, when, why, metadata, files."""
    from pipelines.cli import versions

    versions.shown(model, file, as_json=json)


@models.command("diff")
def diff_versions(
    before: Reference,
    after: Annotated[str, typer.Argument(metavar="NAME", help="A version of the same model.")],
    file: File = None,
    json: Json = False,
) -> None:
    """Show what changed between two versions: lines of text, names of tensors."""
    from pipelines.cli import comparison

    comparison.diff(before, after, file, as_json=json)


@models.command("checkout")
def checkout_version(
    model: Reference,
    into: Annotated[Path, typer.Argument(help="A folder that is not there yet.")],
    file: File = None,
    json: Json = False,
) -> None:
    """Write a version out as a folder, every byte checked."""
    from pipelines.cli import versions

    versions.checkout(model, into, file, as_json=json)


@models.command("import")
def import_version(
    path: Annotated[Path, typer.Argument(help="A Hugging Face folder, or MLflow's of a transformers model.")],
    name: Annotated[str, typer.Option("--name", help="The model that it is a version of.")],
    branch: Annotated[str, typer.Option("--branch", help="Whose tip it becomes.")] = "main",
    message: Annotated[str, typer.Option("-m", "--message", help="Why.")] = "",
    file: File = None,
    json: Json = False,
) -> None:
    """Keep another tool's folder as the next version of a model; `push` takes the same folders."""
    from pipelines.cli import versions

    versions.push(path, name, branch, [], message, file, as_json=json)


@models.command("export")
def export_version(
    model: Reference,
    into: Annotated[Path, typer.Argument(help="A folder that is not there yet.")],
    form: Annotated[str, typer.Option("--format", help="huggingface or mlflow.")] = "huggingface",
    file: File = None,
    json: Json = False,
) -> None:
    """Write a version out for another tool."""
    from pipelines.cli import versions

    versions.export(model, into, form, file, as_json=json)


@models.command("alias")
def alias_version(
    model: Reference,
    alias: Annotated[str, typer.Argument(help="Such as prod.")],
    expected: Annotated[
        str | None, typer.Option("--from", help="The version it is at.", show_default="it is new")
    ] = None,
    file: File = None,
) -> None:
    """Point an alias at a version; of many that move it from the same version, one does."""
    from pipelines.cli import promotion

    promotion.alias(model, alias, expected, file)


@models.command("rollback")
def roll_back_alias(
    alias: Annotated[str, typer.Argument(metavar="MODEL@ALIAS", help="Such as chat@prod.")],
    to: Annotated[
        str | None, typer.Option("--to", help="A version.", show_default="the one that it was at before")
    ] = None,
    file: File = None,
    json: Json = False,
) -> None:
    """Take an alias back to where it was."""
    from pipelines.cli import promotion

    promotion.rollback(alias, to, file, as_json=json)


@models.command("history")
def alias_history(
    alias: Annotated[str, typer.Argument(metavar="MODEL@ALIAS", help="Such as chat@prod.")],
    file: File = None,
    json: Json = False,
) -> None:
    """List where an alias has been, the latest first."""
    from pipelines.cli import promotion

    promotion.history(alias, file, as_json=json)


@models.command("stage")
def stage_version(
    model: Reference,
    stage: Annotated[str, typer.Argument(help="draft, candidate, canary, live or retired.")],
    expected: Annotated[
        str | None, typer.Option("--from", help="The stage it is at.", show_default="whatever it is at")
    ] = None,
    message: Annotated[str, typer.Option("-m", "--message", help="Why.")] = "",
    file: File = None,
    json: Json = False,
) -> None:
    """Bring a version from one stage of its life to another."""
    from pipelines.cli import promotion

    promotion.stage(model, stage, expected, message, file, as_json=json)


@models.command("branch")
def branch_version(
    model: Reference, branch: Annotated[str, typer.Argument(help="The new branch.")], file: File = None
) -> None:
    """Begin a branch at a version."""
    from pipelines.cli import versions

    versions.branch(model, branch, file)


@models.command("tag")
def tag_version(model: Reference, tag: Annotated[str, typer.Argument(help="The new name.")], file: File = None) -> None:
    """Give a version a name that never moves."""
    from pipelines.cli import versions

    versions.tag(model, tag, file)


@models.command("remove")
def remove_name(
    name: Annotated[str, typer.Argument(metavar="MODEL@NAME", help="An alias, a tag or a branch.")],
    kind: Annotated[str | None, typer.Option("--kind", help="alias, tag or branch, where several have it.")] = None,
    file: File = None,
) -> None:
    """Take a name away; versions and where an alias has been stay."""
    from pipelines.cli import versions

    versions.remove(name, kind, file)


@models.command("merge")
def merge_versions(
    source: Annotated[str, typer.Argument(help="A version of the same model; for lora the folder of an adapter.")],
    into: Annotated[str, typer.Option("--into", metavar="MODEL[@BRANCH]", help="The branch that goes on with it.")],
    strategy: Annotated[str, typer.Option("--strategy", help="clean, ours, theirs, linear, task or lora.")] = "clean",
    weight: Annotated[
        float | None,
        typer.Option("--weight", help="How much of the source counts.", show_default="linear 0.5, task and lora 1"),
    ] = None,
    message: Annotated[str, typer.Option("-m", "--message", help="Why.")] = "",
    file: File = None,
    json: Json = False,
) -> None:
    """Make one version of two, of what each changed; the strategy says what becomes of what both changed."""
    from pipelines.cli import versions

    versions.merge(source, into, strategy, weight, message, file, as_json=json)


@models.command("search")
def search_versions(
    query: Annotated[str, typer.Argument(help="Such as 'metrics.exact_match > 0.9 and license = mit'.")],
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="How many at the most.")] = 200,
    file: File = None,
    json: Json = False,
) -> None:
    """List the versions whose metadata, config, card, stage or names are so."""
    from pipelines.cli import metadata

    metadata.search(query, limit, file, as_json=json)


@models.command("reindex")
def reindex_versions(file: File = None) -> None:
    """Make the catalogue that is searched anew, from the history."""
    from pipelines.cli import metadata

    metadata.reindex(file)


@models.command("fsck")
def fsck_versions(
    repair: Annotated[bool, typer.Option("--repair", help="Remove what was changed; then push it again.")] = False,
    file: File = None,
    json: Json = False,
) -> None:
    """Read all content of all versions and say what is missing or was changed."""
    from pipelines.cli import versions

    if versions.fsck(file, repair=repair, as_json=json):
        raise typer.Exit(1)


@models.command("gc")
def collect_versions(file: File = None) -> None:
    """Remove content that no version names, as pushes leave that were cut."""
    from pipelines.cli import versions

    versions.gc(file)


@models.command("webhooks")
def list_webhooks(
    again: Annotated[bool, typer.Option("--again", help="Tell again what was given up.")] = False,
    file: File = None,
    json: Json = False,
) -> None:
    """List what webhooks were told, and what waits."""
    from pipelines.cli import letters

    letters.listing(again, file, as_json=json)


Named = Annotated[str, typer.Argument(metavar="MODEL", help="Which model.")]
Number = Annotated[int, typer.Argument(min=1, help="Of the merge request.")]


@merge_requests.command("open")
def open_request(
    model: Named,
    source: Annotated[str, typer.Argument(help="The branch that is to go in.")],
    title: Annotated[str, typer.Option("-m", "--title", help="What it is about.")],
    target: Annotated[str, typer.Option("--into", help="The branch that takes it.")] = "main",
    strategy: Annotated[str, typer.Option("--strategy", help="clean, ours, theirs, linear or task.")] = "clean",
    weight: Annotated[
        float | None,
        typer.Option("--weight", help="How much of the source counts.", show_default="linear 0.5, task and lora 1"),
    ] = None,
    file: File = None,
    json: Json = False,
) -> None:
    """Ask for a merge."""
    from pipelines.cli import requests

    requests.start(model, source, title, target, strategy, weight, file, as_json=json)


@merge_requests.command("list")
def list_requests(model: Named, file: File = None, json: Json = False) -> None:
    """List those of a model, the latest first."""
    from pipelines.cli import requests

    requests.listing(model, file, as_json=json)


@merge_requests.command("show")
def show_request(model: Named, number: Number, file: File = None, json: Json = False) -> None:
    """Show one: reviews, figures, and what it still needs."""
    from pipelines.cli import requests

    requests.shown(model, number, file, as_json=json)


@merge_requests.command("review")
def review_request(
    model: Named,
    number: Number,
    approve: Annotated[bool, typer.Option("--approve/--refuse", help="Yes or no.")],
    comment: Annotated[str, typer.Option("-m", "--comment", help="Why.")] = "",
    file: File = None,
) -> None:
    """Approve or refuse the version that the source is at now."""
    from pipelines.cli import requests

    requests.review(model, number, file, approves=approve, comment=comment)


@merge_requests.command("evaluate")
def evaluate_request(
    model: Named,
    number: Number,
    metrics: Annotated[list[str], typer.Argument(help="name=number, as often as you like.")],
    of: Annotated[str, typer.Option("--of", help="source or target.")] = "source",
    file: File = None,
) -> None:
    """Keep what was measured of the version that a branch is at now."""
    from pipelines.cli import requests

    requests.evaluate(model, number, metrics, of, file)


@merge_requests.command("merge")
def merge_request(model: Named, number: Number, file: File = None, json: Json = False) -> None:
    """Merge it, if nothing is missing."""
    from pipelines.cli import requests

    requests.merge(model, number, file, as_json=json)


@merge_requests.command("close")
def close_request(
    model: Named,
    number: Number,
    again: Annotated[bool, typer.Option("--reopen", help="Take it up again.")] = False,
    file: File = None,
) -> None:
    """Give it up."""
    from pipelines.cli import requests

    requests.close(model, number, file, again=again)
