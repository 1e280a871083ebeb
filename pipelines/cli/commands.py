"""Every command and its flags. What a command does stands in the module of its name.

Imports nothing but typer, as `strata --help` has to answer at once.
"""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.flags import File, Json, Model, Port, Url
from pipelines.cli.model_commands import models
from pipelines.cli.route_commands import routes
from pipelines.cli.run_commands import runs

strata = typer.Typer(
    name="strata",
    help="Serve language models from tensor-parallel gangs of Ray actors, behind an OpenAI-compatible gateway.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # drawing help with rich imports its Markdown parser: half of the time that help takes
)
config = typer.Typer(
    help="Settings: what they are and where each came from.", no_args_is_help=True, rich_markup_mode=None
)
keys = typer.Typer(help="API keys: issue, list, revoke.", no_args_is_help=True, rich_markup_mode=None)
strata.add_typer(config, name="config")
strata.add_typer(models, name="models")
strata.add_typer(keys, name="keys")
strata.add_typer(runs, name="runs")
strata.add_typer(routes, name="routes")


@strata.command()
def up(
    file: File = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return when it is ready; stop it with `down`.")] = False,
    http_port: Port = None,
    json: Json = False,
) -> None:
    """Start Ray and serve until Ctrl-C.

    Prints the URL, a first API key and how to use them; Ctrl-C drains and leaves nothing running.
    """
    from pipelines.cli import up as command

    command.run(file, {"cluster.http_port": http_port}, detach=detach, as_json=json)


@strata.command()
def status(file: File = None, json: Json = False) -> None:
    """Show the cluster, the models, the replicas."""
    from pipelines.cli import status as command

    command.run(file, as_json=json)


@strata.command()
def chat(
    message: Annotated[str | None, typer.Argument(help="Ask this and leave.", show_default="a conversation")] = None,
    model: Model = None,
    url: Url = None,
    file: File = None,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.0,
    max_tokens: Annotated[int | None, typer.Option(help="Length of an answer.")] = None,
    json: Json = False,
) -> None:
    """Chat in the terminal; the answer streams. The key is STRATA_API_KEY or this machine's own."""
    from pipelines.cli import chat as command

    asked = command.Asked(model, temperature, max_tokens)
    command.run(message, asked, file, url=url, as_json=json)


@strata.command()
def deploy(file: File = None, json: Json = False) -> None:
    """Deploy to a cluster that runs already.

    Returns when every model of the settings file answers.
    """
    from pipelines.cli import deploy as command

    command.run(file, as_json=json)


@strata.command()
def down(file: File = None, json: Json = False) -> None:
    """Drain and stop what `up` started.

    Also ends whatever a killed `up` left behind.
    """
    from pipelines.cli import down as command

    command.run(file, as_json=json)


@strata.command()
def bench(
    folder: Annotated[
        Path | None, typer.Argument(help="A model folder, loaded here without Ray.", show_default="what is served")
    ] = None,
    streams: Annotated[
        list[int] | None, typer.Option("--streams", help="Streams at a time; may be repeated.", min=1)
    ] = None,
    requests: Annotated[int, typer.Option(help="Requests for each number of streams.", min=1)] = 32,
    prompt_tokens: Annotated[int, typer.Option(help="About how long a prompt is.", min=1)] = 64,
    max_tokens: Annotated[int, typer.Option(help="How long an answer is.", min=1)] = 64,
    quantization: Annotated[
        str | None,
        typer.Option(help="Round the folder's weights: int8, int4 or fp8.", show_default="as the folder has them"),
    ] = None,
    peers: Annotated[bool, typer.Option("--peers", help="Measure the other engines that are installed, too.")] = False,
    picture: Annotated[
        Path | None, typer.Option(help="Draw throughput against latency: an .svg.", show_default="none")
    ] = None,
    model: Model = None,
    url: Url = None,
    file: File = None,
    json: Json = False,
) -> None:
    """Measure the gateway, or a model folder, under load."""
    from pipelines.bench.figures import Load
    from pipelines.cli import bench as command

    usual = [many for many in (1, 8, 32) if many <= requests]
    load = Load(tuple(streams or usual), requests, prompt_tokens, max_tokens)
    command.run(command.Asked(load, folder, quantization, peers, picture, model, url, file), as_json=json)


@strata.command()
def drain(
    node: Annotated[str, typer.Argument(help="The beginning of its id, its address or its name.")],
    minutes: Annotated[float, typer.Option(help="How long that may take.", min=0)] = 10.0,
    file: File = None,
    json: Json = False,
) -> None:
    """Empty a node before it is switched off: gangs start elsewhere, running answers move and go on."""
    from pipelines.cli import drain as command

    command.run(file, node, minutes, as_json=json)


@strata.command()
def chaos(
    faults: Annotated[int, typer.Option(help="How many.", min=1)] = 60,
    minutes: Annotated[float, typer.Option(help="Spread over; more, where gangs take longer to come again.")] = 10.0,
    streams: Annotated[int, typer.Option(help="Streams at any time.", min=1)] = 16,
    rate: Annotated[float, typer.Option(help="Short requests a second beside them.", min=0)] = 10.0,
    seed: Annotated[int, typer.Option(help="The same faults in the same order.")] = 1,
    budget: Annotated[int, typer.Option(help="Bad answers beyond which it stops.", min=0)] = 0,
    spare: Annotated[int, typer.Option(help="Gangs of a model that always go on.", min=0)] = 1,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            help="kill-shard, freeze-shard, kill-leader, freeze-leader, kill-controller, kill-store, kill-node. "
            "Repeatable.",
            show_default="all but kill-node",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the report goes, as .json and .svg.")] = Path("chaos"),
    model: Model = None,
    file: File = None,
    json: Json = False,
) -> None:
    """Kill and freeze processes of the running stack while clients ask, and report what they saw.

    Fails where an answer failed, was cut or was not what an undisturbed run said, or where something was left behind.
    """
    from pipelines.cli import chaos as command

    asked = command.Asked(faults, minutes, streams, rate, seed, budget, spare, tuple(kind or ()), out, model)
    command.run(file, asked, as_json=json)


@strata.command()
def rollout(
    words: Annotated[list[str], typer.Argument(metavar="MODEL", help="Or pause, resume, abort, promote and a name.")],
    to: Annotated[str | None, typer.Option("--to", help="The version that shall have the users.")] = None,
    source: Annotated[
        str | None,
        typer.Option("--from", help="Whose users; needed where --to has most.", show_default="the version with most"),
    ] = None,
    steps: Annotated[
        str, typer.Option(help="Percent of them, one after the other; 100 comes last, said or not.")
    ] = "0.5,5,25,50,100",
    every: Annotated[str, typer.Option(help="How long a step is, such as 30s or 10m.")] = "10m",
    abort_if: Annotated[
        list[str] | None, typer.Option(help="Such as 'p99_latency > 500ms' or 'error_rate > 1%'. Repeatable.")
    ] = None,
    margin: Annotated[str, typer.Option(help="How much slower it may be: 20% or 0.2; off: only --abort-if.")] = "20%",
    answers: Annotated[int, typer.Option(help="Of the new version, before a step is over.", min=1)] = 50,
    mirror: Annotated[
        str | None, typer.Option(help="Percent of requests that the new version is asked, too, unseen.")
    ] = None,
    evals: Annotated[
        list[str] | None,
        typer.Option(
            "--eval", help="Questions for a rule on eval.NAME: NAME=FILE.jsonl, or NAME=held-out. Repeatable."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would do, and begin nothing.")] = False,
    url: Url = None,
    file: File = None,
    json: Json = False,
) -> None:
    """Give a model's users another version step by step; it is taken back where it proves to be worse."""
    from pipelines.cli import rollouts as command

    asked = command.Asked(
        to, source, steps, every, tuple(abort_if or ()), margin, answers, mirror, tuple(evals or ()), dry_run
    )
    command.run(words, asked, file, url, as_json=json)


@strata.command()
def rollouts(
    name: Annotated[str | None, typer.Argument(help="Show every step of this one.", show_default="all")] = None,
    url: Url = None,
    file: File = None,
    json: Json = False,
) -> None:
    """Show the rollouts: where they are and why."""
    from pipelines.cli import rollouts as command

    command.listing(name, file, url, as_json=json)


@strata.command()
def experiment(
    words: Annotated[list[str], typer.Argument(metavar="MODEL", help="Or end and a name.")],
    arms: Annotated[str, typer.Option(help="Percent of the users by version, such as v6=50,v7=50.")] = "",
    name: Annotated[str, typer.Option(help="What it is called.", show_default="as the model")] = "",
    metric: Annotated[str, typer.Option(help="thumbs, score, or kept: whether users ask the same again.")] = "thumbs",
    rate: Annotated[str, typer.Option(help="What is expected of the first version: 60% or 0.6.")] = "50%",
    effect: Annotated[str, typer.Option(help="The least difference that matters: 5% or 0.05.")] = "5%",
    users: Annotated[int, typer.Option(help="How many are expected to have an outcome.", min=1)] = 10_000,
    force: Annotated[bool, typer.Option("--force", help="Even where it could hardly be settled.")] = False,
    keep: Annotated[str | None, typer.Option(help="With end: the version that all users get.")] = None,
    url: Url = None,
    file: File = None,
    json: Json = False,
) -> None:
    """Compare versions of a model by what users make of their answers."""
    from pipelines.cli import experiments as command

    asked = command.Asked(name, arms, metric, rate, effect, users, force)
    command.run(words, asked, keep, file, url, as_json=json)


@strata.command()
def experiments(
    name: Annotated[str | None, typer.Argument(help="Show this one.", show_default="all")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw it: an .svg.", show_default="none")] = None,
    url: Url = None,
    file: File = None,
    json: Json = False,
) -> None:
    """Show experiments, and what they have found."""
    from pipelines.cli import experiments as command

    command.listing(name, picture, file, url, as_json=json)


@strata.command()
def doctor(file: File = None, json: Json = False) -> None:
    """Check this machine; say what to do."""
    from pipelines.cli import doctor as command

    command.run(file, as_json=json)


@strata.command()
def build(file: File = None, json: Json = False) -> None:
    """Compile ahead what `up` would compile."""
    from pipelines.cli import build as command

    command.run(file, as_json=json)


@strata.command()
def quantize(
    model: Annotated[Path, typer.Argument(help="A Hugging Face folder with float weights.")],
    to: Annotated[str, typer.Option("--to", help="int8, int4 or fp8.")],
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="Text to calibrate with and measure on, a sample a line.", show_default="our own, if need be"
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="rtn, awq, gptq or smoothquant.", show_default="rtn; gptq where there is text"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where to. A folder that this command made before is replaced.", show_default="beside the model"
        ),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="Leave layers alone: a part of their name, or re:EXPRESSION. Repeatable.")
    ] = None,
    keep_embedding: Annotated[
        bool, typer.Option("--keep-embedding", help="Round no embedding and no head, as vLLM's releases want it.")
    ] = False,
    report: Annotated[bool, typer.Option(help="Measure before and after, and each layer alone.")] = True,
    per_task: Annotated[
        int | None, typer.Option(help="Held-out questions of each task.", show_default="30 for the starter, else 0")
    ] = None,
    json: Json = False,
) -> None:
    """Make a folder of int8, int4 or fp8 weights that Strata and vLLM serve, and report what it cost."""
    from pipelines.cli import quantize as command
    from pipelines.cli.stops import interruptible

    interruptible()
    asked = command.Asked(to, method, calibrate, out, tuple(ignore or ()), keep_embedding, report, per_task)
    command.run(model, asked, as_json=json)


@strata.command("env")
def shell_env(file: File = None, json: Json = False) -> None:
    """Print what Ray's own commands need in a shell: eval "$(strata env)".

    Then `ray job submit` and `serve run` find the cluster that `up` started, and its token.
    """
    from pipelines.cli import node as command

    command.shell(file, as_json=json)


@strata.command("node-env", hidden=True)
def node_env(file: File = None) -> None:
    """Print the environment that a node of a cluster needs before `ray start`: eval "$(strata node-env)"."""
    from pipelines.cli import node as command

    command.run(file)


@config.command()
def explain(key: str, file: File = None, json: Json = False) -> None:
    """Say what KEY (such as models.0.replicas) is set to, and by whom."""
    from pipelines.cli import config as command

    command.run(key, file, as_json=json)


@config.command("init")
def init_config(
    file: Annotated[Path, typer.Option("-f", "--file", help="Where to; it must not exist.")] = Path("strata.yaml"),
    json: Json = False,
) -> None:
    """Write a settings file to start from."""
    from pipelines.cli import config as command

    command.begin(file, as_json=json)


@config.command("show")
def show_config(file: File = None, json: Json = False) -> None:
    """Show all settings and where each came from."""
    from pipelines.cli import config as command

    command.run("", file, as_json=json)


@keys.command()
def issue(
    name: Annotated[str, typer.Option(help="Whose key it is.")] = "default",
    tenant: Annotated[str, typer.Option(help="Tenants share no cache.")] = "default",
    role: Annotated[str, typer.Option(help="admin, developer, user or monitor.")] = "user",
    priority: Annotated[int, typer.Option(help="The most urgent of its requests; lower is sooner.")] = 0,
    file: File = None,
    json: Json = False,
) -> None:
    """Make a key and print it, this once."""
    from pipelines.cli import keys as command

    command.issue(name, tenant, role, priority, file, as_json=json)


@keys.command("list")
def list_keys(file: File = None, json: Json = False) -> None:
    """List the keys by their public ids."""
    from pipelines.cli import keys as command

    command.listing(file, as_json=json)


@keys.command()
def revoke(key_id: str, file: File = None, json: Json = False) -> None:
    """Refuse a key from now on."""
    from pipelines.cli import keys as command

    command.revoke(key_id, file, as_json=json)
