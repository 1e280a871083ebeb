"""From how an eval set is named, in the settings or on the command line, to its questions.

Knows files and the tasks that the starter model was held out from. Knows nothing of who asks them.
"""

from pathlib import Path

from cluster.errors import InvalidRequest, SettingsInvalid
from pipelines.routing import cases
from pipelines.routing.cases import Cases
from pipelines.settings import Settings

HELD_OUT = "held-out"
PER_TASK = 20  # questions of each


def cases_of(source: str) -> Cases:
    """A JSONL file, or the held-out tasks of the starter model by the name `held-out`. Raises InvalidRequest."""
    if source != HELD_OUT:
        return cases.read(Path(source).expanduser())
    from pipelines.lifecycle.data.mixture import held_out_set  # noqa: PLC0415 - few ask, and it draws for a while

    return cases.held_out((example.turns, example.tools) for example in held_out_set(PER_TASK))


def declared(settings: Settings) -> dict[str, dict[str, Cases]]:
    """The sets of each model by name, read. Raises SettingsInvalid naming the key and what is wrong with the file."""
    return {
        model: {name: _read(f"routes.{model}.evals.{name}", source) for name, source in route.evals.items()}
        for model, route in settings.routes.items()
    }


def _read(key: str, source: str) -> Cases:
    try:
        return cases_of(source)
    except InvalidRequest as wrong:
        raise SettingsInvalid(key, source, str(wrong)) from None
