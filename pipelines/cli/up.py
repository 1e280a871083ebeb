"""`strata up`: from nothing to a model that answers, and back to nothing on Ctrl-C."""

import json
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster import folders, hardware, runtime
from cluster.errors import ModelInvalid, SettingsInvalid
from cluster.settings import ClusterSettings
from pipelines import workers
from pipelines.cli import build, down, gangs, keys, serving, show
from pipelines.cli.config import settle
from pipelines.cli.settling import settled
from pipelines.cli.stops import STOPS, held_back, interruptible
from pipelines.settings import Settings

WATCH_SECONDS = 1.0  # how often it is asked whether somebody else took the cluster down


def run(file: Path | None, flags: Mapping[str, Any], *, detach: bool, as_json: bool) -> None:
    """Start, serve, say how to use it; then stay until Ctrl-C, or leave if `detach`."""
    settings = settle(file, flags).settings
    if settings.cluster.address != "local":
        raise SettingsInvalid(
            "cluster.address", settings.cluster.address, "`up` starts its own Ray; use `strata deploy`"
        )
    settings = settled(settings, as_json=as_json)
    for model in settings.models:  # before anything is started, as the shards are on this machine
        if not Path(model.path).is_dir():
            raise ModelInvalid(model.path, "there is no such folder", f"set the path of model {model.name}")
    interruptible()
    with folders.held(settings.cluster):
        refuse(settings.cluster, runtime.find(settings.cluster))
        build.ensure(settings.cluster)
        show.progress("starting Ray")
        anticipated = serving.anticipate(settings)
        running = runtime.start(settings.cluster, workers.words())
        try:
            anticipated.join()
            serve(settings, running)
            announce(settings, as_json)
        except BaseException:
            if running.new:  # what this command started it does not leave half done
                down.everything(settings.cluster)
            raise
        if detach:
            runtime.disconnect()  # what Ray does by itself as Python exits begins with half a second of sleep
        else:
            stay(settings)


def refuse(cluster: ClusterSettings, running: runtime.Running | None) -> None:
    """Raises SettingsInvalid where HTTP cannot be answered: beside what runs already, or on a port that is not free."""
    if running is None:
        if problem := hardware.port_problem(cluster.host, cluster.http_port):
            raise SettingsInvalid("cluster.http_port", f"{cluster.host}:{cluster.http_port}", problem)
    elif running.url != cluster.url or (running.host and running.host != cluster.host):
        asked, there = f"{cluster.host}:{cluster.http_port}", running.url.rpartition("/")[2]
        raise SettingsInvalid("cluster.http_port", asked, f"Strata runs on {there} already; `strata down` first")


def serve(settings: Settings, running: runtime.Running) -> None:
    """Bring the models onto the cluster; returns when they answer."""
    started = time.monotonic()

    def tell(text: str) -> None:
        show.progress(f"{time.monotonic() - started:5.1f} s  {text}")

    tell(f"Ray is at {running.address}")
    if running.note:
        tell(running.note)
    for line in runtime.unread(settings.cluster, running):
        show.warning(line)
    runtime.connect(settings.cluster, running, workers.python())
    interruptible()  # again: Ray has put its own answer to SIGTERM in place
    key = keys.operator(settings.cluster)
    settings = serving.publish(settings)
    serving.wait(settings, key, tell)
    tell("every rank of every model has made a token")


def announce(settings: Settings, as_json: bool) -> None:
    """Say where it is and how to ask it."""
    key, url = keys.first(settings.cluster), settings.cluster.url
    if as_json:
        facts = {"url": f"{url}/v1", "key": key, "models": [model.name for model in settings.models]}
        show.document(facts)
        return
    shown = key or "$STRATA_API_KEY"
    show.line(f"\n[bold green]Strata answers at {url}/v1[/]")
    if key:
        show.line(f"Your first API key, shown this once: [bold]{key}[/]")
    else:
        show.line("Use the API key that you have, or make another: strata keys issue")
    model = settings.models[0].model  # without a version, as versions come and go
    show.line(f"\n{curl(url, shown, model)}\n\n{python(url, shown, model)}\n")
    show.line("[dim]Or: strata chat. `strata status` shows what runs; `strata down` or Ctrl-C here stops it.[/]")


def curl(url: str, key: str, model: str) -> str:
    """A request to paste into a shell."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "What is 7 times 8?"}]})
    return (
        f'curl {url}/v1/chat/completions -H "Authorization: Bearer {key}" '
        f"-H 'Content-Type: application/json' -d '{body}'"
    )


def python(url: str, key: str, model: str) -> str:
    """The same to paste into Python, through the unmodified OpenAI client."""
    secret = f'"{key}"' if key.startswith("sk-") else 'os.environ["STRATA_API_KEY"]'
    return "\n".join(
        (
            "import os" if not key.startswith("sk-") else "# pip install openai",
            "from openai import OpenAI",
            f'client = OpenAI(base_url="{url}/v1", api_key={secret})',
            f'answer = client.chat.completions.create(model="{model}", messages=[',
            '    {"role": "user", "content": "What is 7 times 8?"}])',
            "print(answer.choices[0].message.content)",
        )
    )


def stay(settings: Settings) -> None:
    """Until a signal to stop, or until the cluster is gone; then drain and leave nothing behind."""
    try:
        with held_back(STOPS):
            watch = gangs.Watch(serving.gangs, gangs.alive, show.progress)
            while True:
                if signal.sigtimedwait(STOPS, WATCH_SECONDS):
                    show.progress("Draining; Ctrl-C again ends it at once")
                    break
                if runtime.find(settings.cluster) is None:
                    show.progress("The cluster was stopped")
                    break
                watch.look()
    finally:
        down.everything(settings.cluster)
