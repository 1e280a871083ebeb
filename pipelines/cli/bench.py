"""`strata bench`: load on the gateway, or on a model folder in this process, with other engines beside it if wanted.

Owns the flags, the table and where the picture goes. What is measured stands in `pipelines.bench`.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from textwrap import fill
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cluster.errors import InvalidRequest, StrataError, Unavailable
from pipelines.bench import peers
from pipelines.bench.figures import Load, Row, summarize
from pipelines.bench.picture import Point, draw
from pipelines.cli import show

QUANTIZATIONS = ("int8", "int4", "fp8")
OURS = "Strata"
NAME_WIDTH = 14  # of an engine's name beside the columns
# What stands over a column of the table, which fits 80 characters with an engine's name.
COLUMNS = {
    "streams": "streams",
    "tokens/s": "tokens\n/s",
    "answer p50 ms": "answer\np50 ms",
    "first token p50 ms": "first\ntoken\np50 ms",
    "first token p99 ms": "first\ntoken\np99 ms",
    "between tokens p50 ms": "next\ntoken\np50 ms",
    "failed": "failed",
    "seconds": "seconds",
}
Begin = Callable[[str, int], Callable[[int], None]]


@dataclass(frozen=True, slots=True)
class Asked:
    """The flags. `folder` None: what is served. `model` and `url` name what is served, the rest is for a folder."""

    load: Load
    folder: Path | None = None
    quantization: str | None = None
    peers: bool = False
    picture: Path | None = None
    model: str | None = None
    url: str | None = None
    file: Path | None = None


@dataclass(slots=True)
class Found:
    """Rows of each engine; why an engine has none."""

    of: str
    engines: dict[str, list[Row]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    load_seconds: float | None = None


def run(asked: Asked, *, as_json: bool) -> None:
    """Measure; print one row for each engine and number of streams; draw."""
    _refuse(asked)
    with _progress() as begin:
        found = _gateway(asked, begin) if asked.folder is None else _folder(asked, asked.folder, begin)
    if as_json:
        show.document(_document(asked, found))
    else:
        _print(found)
    if asked.picture is not None:
        asked.picture.write_text(draw(_title(asked, found.of), _lines(found)), encoding="utf-8")
        if not as_json:
            show.line(f"Drawn in {asked.picture}.")


def _refuse(asked: Asked) -> None:
    for streams in asked.load.streams:
        if streams < 1:
            raise InvalidRequest("streams", streams, "one at a time at the least")
        if streams > asked.load.requests:
            remedy = f"as many --requests at least, of which there are {asked.load.requests}"
            raise InvalidRequest("streams", streams, remedy)
    if asked.quantization not in (None, "none", *QUANTIZATIONS):
        raise InvalidRequest("quantization", asked.quantization, f"one of none, {', '.join(QUANTIZATIONS)}")
    if asked.picture is not None:
        show.refuse_picture(asked.picture)
    if asked.folder is None:
        for name, value in (("quantization", asked.quantization), ("peers", asked.peers)):
            if value:
                raise InvalidRequest(name, value, "name a model folder as well; what is served has its own settings")
        return
    for name, text in (("model", asked.model), ("url", asked.url), ("file", asked.file)):
        if text:
            raise InvalidRequest(name, str(text), "leave it out; it says what is served, and a folder is not")
    if not (asked.folder / "config.json").is_file():
        raise InvalidRequest("folder", str(asked.folder), "a Hugging Face model folder, with a config.json")
    if asked.peers:
        peers.check(_rounding(asked))


def _rounding(asked: Asked) -> str | None:
    return None if asked.quantization == "none" else asked.quantization


def _gateway(asked: Asked, begin: Begin) -> Found:
    from pipelines.bench import gateway  # noqa: PLC0415  httpx and the driver are for those who ask a gateway
    from pipelines.cli.config import settle  # noqa: PLC0415
    from pipelines.cli.keys import mine  # noqa: PLC0415
    from pipelines.driver import connect  # noqa: PLC0415

    cluster = settle(asked.file).settings.cluster
    base = asked.url or cluster.url
    _answers(base, asked.url is not None)
    key = mine(cluster)
    with connect(base, key) as strata:
        found = Found(asked.model or strata.models()[0])
    rows = found.engines.setdefault(OURS, [])
    for streams in asked.load.streams:
        done = begin(f"{asked.load.requests} requests, {streams} at a time", asked.load.requests)
        started = time.perf_counter()
        samples = asyncio.run(gateway.drive(base, key, found.of, asked.load, streams))
        rows.append(summarize(streams, samples, time.perf_counter() - started))
        done(len(samples))
        if all(sample.failed for sample in samples):
            raise Unavailable("every request", samples[0].failed)
    return found


def _answers(base: str, given: bool) -> None:
    """Raises where nothing answers, before a key is looked for that nobody could check."""
    import httpx  # noqa: PLC0415

    try:
        httpx.get(f"{base}/health", timeout=5.0, trust_env=False)
    except (httpx.UnsupportedProtocol, httpx.InvalidURL):
        raise InvalidRequest("url", base, "http://HOST:PORT, where Strata answers") from None
    except httpx.HTTPError as wrong:
        remedy = "is it the right address?" if given else "start it with: strata up"
        raise Unavailable(base, f"nothing answers there ({wrong or type(wrong).__name__}); {remedy}") from None


def _folder(asked: Asked, folder: Path, begin: Begin) -> Found:
    from pipelines.bench.offline import Folder  # noqa: PLC0415  torch is for those who load a folder

    found, load = Found(str(folder)), asked.load
    begin(f"load {folder}", 0)
    with Folder(folder, _rounding(asked), load) as loaded:
        found.load_seconds, vocabulary = loaded.load_seconds, loaded.vocabulary
        rows = found.engines.setdefault(OURS, [])
        for streams in load.streams:
            begun = begin(f"{load.requests} requests, {streams} at a time", load.requests)
            rows.append(loaded.row(load, streams, begun))
    if asked.peers:
        try:
            for heard in peers.listen(folder, _rounding(asked), load, vocabulary):
                if heard.failed:
                    found.failed[heard.title] = heard.failed
                elif heard.row is not None:
                    found.engines.setdefault(heard.title, []).append(heard.row)
                else:
                    begin(heard.title, 0)
        except StrataError as error:
            found.failed["the others"] = str(error)
    return found


@contextmanager
def _progress() -> Iterator[Begin]:
    """Beside the result: bars on a terminal, a plain line for each stage elsewhere."""
    if not show.err.is_terminal:
        yield _say
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=show.err) as shown:

        def begin(name: str, many: int) -> Callable[[int], None]:
            task = shown.add_task(name, total=many or None)
            return lambda done: shown.update(task, completed=done)

        yield begin


def _say(name: str, _: int) -> Callable[[int], None]:
    show.progress(name)
    return lambda _: None


def _title(asked: Asked, of: str) -> str:
    load, rounded = asked.load, f" in {asked.quantization}" if _rounding(asked) else ""
    return f"{of}{rounded}: {load.prompt_tokens} tokens in, {load.max_tokens} out"


def _lines(found: Found) -> dict[str, list[Point]]:
    return {
        name: [Point(int(row["streams"]), row["answer p50 ms"], row["tokens/s"]) for row in rows]
        for name, rows in found.engines.items()
    }


def _document(asked: Asked, found: Found) -> dict[str, Any]:
    return {
        "model": found.of,
        "quantization": asked.quantization,
        "load": asdict(asked.load),
        "load_seconds": found.load_seconds,
        "results": found.engines[OURS],
        "peers": {name: rows for name, rows in found.engines.items() if name != OURS},
        "failed": found.failed,
    }


def _print(found: Found) -> None:
    several = len(found.engines) > 1
    rows = [
        (
            *([fill(name, NAME_WIDTH)] if several else []),
            *(figure(row[column]) if column in row else "" for column in COLUMNS),
        )
        for name, rows in found.engines.items()
        for row in rows
    ]
    show.table((*(["engine"] if several else []), *COLUMNS.values()), rows)
    for name, why in found.failed.items():
        show.line(f"{name}: {why}")


def figure(value: float) -> str:
    """Four digits, and all that stand before the point."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"
