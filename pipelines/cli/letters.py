"""`strata models webhooks`: what was told to whom, what waits, what was given up.

Owns words. What is told, and how, stands in `actors.registry` and `pipelines.webhooks`.
"""

import os
from pathlib import Path

from rich.markup import escape

from actors.registry.outbox import Outbox
from pipelines.cli import show
from pipelines.cli.entrance import entered
from pipelines.webhooks import hook_id, silent


def listing(again: bool, file: Path | None, *, as_json: bool) -> None:
    """The letters there are; with `again`, what was given up is told again."""
    settings, registry, _ = entered(file, "webhooks")
    outbox = Outbox(registry)
    renewed = outbox.again() if again else 0
    hosts = {hook_id(hook.url): hook.url for hook in settings.registry.webhooks}
    found, problems = outbox.all(), silent(settings, os.environ)
    if as_json:
        rows = [
            {"url": hosts.get(each.hook, each.hook), "id": each.id, "type": each.kind, "at": each.at,
             "state": each.state, "tries": each.tries, "said": each.said}
            for each in found
        ]  # fmt: skip
        show.document({"renewed": renewed, "events": rows, "problems": problems})
        return
    if not hosts:
        show.line("No webhook is configured: name one under registry.webhooks in the settings, then deploy")
    for problem in problems:
        show.line(f"[yellow]{escape(problem)}[/]")
    if again:
        show.line(f"{renewed} events are told again")
    show.table(
        ("event", "when", "what", "to", "state", "tries", "answer"),
        [
            (each.id[:12], show.when(each.at), each.kind, hosts.get(each.hook, "nobody any more"), each.state,
             each.tries, each.said)
            for each in found
        ],
    )  # fmt: skip
