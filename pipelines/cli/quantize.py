"""`strata quantize`: a float folder in, a compressed-tensors folder out, and a report of what that cost.

Owns the order of things and the sample text. How a matrix is rounded, laid out and measured stands in
`actors.quantization`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from tokenizers import Tokenizer

from actors.models.config import context_of, read_config
from actors.quantization.calibrate import METHODS, Calibrated, calibrate
from actors.quantization.ignored import check_ignored
from actors.quantization.landing import REPORT, landing
from actors.quantization.measure import Wanted, measured
from actors.quantization.network import Network
from actors.quantization.picture import draw
from actors.quantization.report import Report, Side
from actors.quantization.sample import OWN_TEXT, Piece, Sample, sample
from actors.quantization.sensitivity import RULE, sensitivities
from actors.quantization.writing import (
    TARGETS,
    Plan,
    check,
    float32_bytes,
    needed_bytes,
    scale_type_of,
    weight_bytes,
    write,
)
from cluster.errors import InvalidRequest, ModelInvalid, StrataError
from cluster.hardware import free_bytes
from pipelines.cli import show
from pipelines.lifecycle.conversation import prompt, spans
from pipelines.lifecycle.data.example import Example
from pipelines.lifecycle.data.mixture import held_out_set, stream
from pipelines.lifecycle.folder import write_json
from pipelines.lifecycle.score import score
from pipelines.lifecycle.tokenizer import load_tokenizer

CALIBRATION_ROWS, MEASURED_ROWS, SENSITIVITY_ROWS = 128, 64, 24  # a conversation of ours, or 256 tokens
CALIBRATION_SEED, MEASURED_SEED = 2**41, 2**42  # far from the seeds that training uses
PICTURE = "quantization.svg"
STARTER = "evaluation.json"  # only a model of ours was taught the tasks that are scored
Advance = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """The flags. `method` None: gptq where there is text to calibrate with, else rtn."""

    to: str
    method: str | None = None
    calibrate: Path | None = None
    out: Path | None = None
    ignore: tuple[str, ...] = ()
    keep_embedding: bool = False
    report: bool = True
    per_task: int | None = None

    @property
    def chosen(self) -> str:
        """The method."""
        return self.method or ("gptq" if self.calibrate is not None and self.to != "fp8" else "rtn")


def run(model: Path, asked: Asked, *, as_json: bool) -> None:
    """Quantize, report, say where it lies."""
    _refuse(asked)
    check(model)
    check_ignored(model, _plan(asked))
    named = model.resolve() if model.name in ("", "..") else model
    out = asked.out or named.with_name(f"{model.resolve().name}-{asked.to}")
    if model.resolve().is_relative_to(out.resolve()):
        raise InvalidRequest("--out", str(out), "another folder than the model's")
    _room(model, out, _plan(asked))
    with _bars() as bar:
        with landing(out) as part:
            said, held = _made(model, part, asked, bar)
        report = None if held is None else _reported(model, out, asked, held, said["ignore"], bar)
    if report is None:
        _finish({"out": str(out), "quantization_config": said}, out, as_json)
    elif as_json:
        show.document(report.document())
    else:
        _tables(report)


def _made(model: Path, part: Path, asked: Asked, bar: Callable[[str], Advance]) -> tuple[dict[str, Any], Sample | None]:
    """Fill the folder `part`: its quantization_config, and what to measure it on if that is wanted."""
    plan = _plan(asked)
    take = partial(_sample, model, asked.calibrate)
    held = take(MEASURED_SEED, MEASURED_ROWS) if asked.report else None  # too short a text is refused before the work
    calibrated = None
    if asked.chosen != "rtn":
        rows = take(CALIBRATION_SEED, CALIBRATION_ROWS)
        calibrated = _calibrated(Network(model), rows, asked, plan, bar(f"calibrate by {asked.chosen}"), model)
    return write(model, part, plan, calibrated, bar("write")), held


def _reported(
    model: Path, out: Path, asked: Asked, held: Sample, left: list[str], bar: Callable[[str], Advance]
) -> Report:
    """What the weights in `out` cost, put beside them. They stay where it cannot be told, and who asked hears it."""
    try:
        report = _measured(model, out, asked, held, left, bar)
        write_json(out / REPORT, report.document())
        (out / PICTURE).write_text(draw(report), encoding="utf-8")
    except StrataError as error:
        raise StrataError(f"{out} is written and can be served, but not what it costs is known: {error}") from error
    except KeyboardInterrupt:
        show.warning(f"the weights are in {out}; the report is missing")
        raise
    return report


def _room(model: Path, out: Path, plan: Plan) -> None:
    needed, free = needed_bytes(model, plan), free_bytes(out.resolve().parent)
    if needed > free:
        raise InvalidRequest("--out", str(out), f"a place with {needed / 1e9:.1f} GB free; {free / 1e9:.1f} are here")


def _plan(asked: Asked) -> Plan:
    return Plan(asked.to, asked.ignore, not asked.keep_embedding, activations=asked.chosen == "smoothquant")


@lru_cache(1)
def _lines(file: Path) -> list[str]:
    """Of the user's text, those that hold something. Raises InvalidRequest where it is no text."""
    try:
        found = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = error.strerror if isinstance(error, OSError) else "this is not UTF-8"
        raise InvalidRequest(
            "--calibrate", str(file), f"a file of text in UTF-8, a sample a line ({problem})"
        ) from error
    return [line for line in found.splitlines(keepends=True) if line.strip()]


def _refuse(asked: Asked) -> None:
    if asked.calibrate is not None:
        _lines(asked.calibrate)
    if asked.to not in TARGETS:
        raise InvalidRequest("to", asked.to, f"one of {', '.join(TARGETS)}")
    if asked.chosen not in METHODS:
        raise InvalidRequest("method", asked.chosen, f"one of {', '.join(METHODS)}")
    if asked.to == "fp8" and asked.chosen != "rtn":
        raise InvalidRequest("method", asked.chosen, "rtn, as fp8 is only rounded to the nearest")
    if asked.chosen == "smoothquant" and asked.to != "int8":
        raise InvalidRequest("method", asked.chosen, "--to int8, as it readies activations for bytes")
    if asked.calibrate is not None and asked.chosen == "rtn" and not asked.report:
        remedy = "rounding to the nearest reads no text: drop it, or --no-report, whose perplexity is measured on it"
        raise InvalidRequest("--calibrate", str(asked.calibrate), remedy)
    if asked.per_task is not None and asked.per_task < 0:
        raise InvalidRequest("--per-task", asked.per_task, "0 or more questions")
    if asked.per_task and not asked.report:
        raise InvalidRequest("--per-task", asked.per_task, "drop --no-report: the questions are a part of it")


def _calibrated(network: Network, rows: Sample, asked: Asked, plan: Plan, progress: Advance, model: Path) -> Calibrated:
    return calibrate(
        network, rows, asked.chosen, plan.bits, ignored=lambda name: not plan.rounds(name),
        scale_type=scale_type_of(model), progress=progress,
    )  # fmt: skip


def _encoder(model: Path, *, whole: bool) -> Callable[[str], list[int]]:
    """Text as tokens; `whole`: with those that a tokenizer puts around a text."""
    try:
        tokenizer: Tokenizer = load_tokenizer(model)
    except Exception as error:  # the Rust library raises nothing narrower
        remedy = "fetch all files of the model"
        raise ModelInvalid(str(model / "tokenizer.json"), f"cannot be read ({error})", remedy) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=whole).ids
        return ids

    return encode


def _sample(model: Path, file: Path | None, seed: int, rows: int) -> Sample:
    longest = context_of(read_config(model).get_text_config(decoder=True))
    if file is not None:
        rows = max(rows // 4, 1)  # rows of text that fill the width, not conversations
    begin = _encoder(model, whole=True)("")[:1]  # what the tokenizer begins a text with
    encode, of = _encoder(model, whole=False), OWN_TEXT if file is None else str(file)
    return sample(_text(file, seed), encode, rows, longest, apart=file is None, begin=begin, of=of)


def _text(file: Path | None, seed: int) -> Iterator[list[Piece]]:
    """The lines of `file`, or conversations from the generator that the starter model was taught by.

    In those only what the assistant says counts: nothing else was taught.
    """
    if file is None:
        yield from (_written(example) for example in islice(stream(seed), 5_000))
        return
    lines = _lines(file)
    # what is measured is not what was calibrated with: one takes the even lines first, the other the odd ones
    first = 0 if seed == CALIBRATION_SEED else 1
    for line in chain(lines[first::2], lines[1 - first :: 2]):
        yield [(line, True)]


def _written(example: Example) -> list[Piece]:
    return [*spans(example.turns, None, example.tools), ("\n", False)]


def _measured(
    model: Path, out: Path, asked: Asked, held: Sample, left: list[str], bar: Callable[[str], Advance]
) -> Report:
    embedding = _plan(asked).rounds("embed_tokens")
    parts = sensitivities(
        Network(model), held.first(SENSITIVITY_ROWS), asked.to, embedding=embedding, progress=bar("sensitivity")
    )
    taught = (model / STARTER).is_file()
    many = asked.per_task if asked.per_task is not None else 30 if taught else 0
    questions = held_out_set(many) if many else []
    progress = bar("measure")
    progress(0, 2)
    before = _side(model, model, questions, held)
    progress(1, 2)
    after = _side(out, model, questions, held)
    progress(2, 2)
    return Report(
        str(model), str(out), asked.to, asked.chosen, float32_bytes(model), before, after, tuple(parts), tuple(left),
        text=asked.calibrate.name if asked.calibrate else OWN_TEXT,
        vocabulary=read_config(model).get_text_config(decoder=True).vocab_size,
    )  # fmt: skip


def _side(folder: Path, model: Path, questions: list[Example], held: Sample) -> Side:
    """`folder`, by the engine, in a process of its own."""
    encode = _encoder(model, whole=True)
    prompts = [encode(prompt(example.turns, None, example.tools)) for example in questions]
    found = measured(
        Wanted(str(folder.resolve()), "auto", held.tokens.tolist(), held.counted.tolist(), prompts, batches=[1, 8, 32])
    )
    scores = score(questions, found.answers)
    return Side(
        weight_bytes=weight_bytes(folder),
        peak_bytes=found.peak_bytes,
        load_seconds=found.load_seconds,
        perplexity=found.perplexity,
        exact_match=scores[-1].percent if questions else None,
        asked=len(questions),
        tasks={one.task: round(one.percent, 2) for one in scores[:-1]},
        tokens_a_second=found.tokens_a_second,
    )


@contextmanager
def _bars() -> Iterator[Callable[[str], Advance]]:
    """Progress beside the result: a bar for each stage."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=show.err) as shown:

        def bar(name: str) -> Advance:
            task = shown.add_task(name, total=None)
            return lambda done, total: shown.update(task, completed=done, total=total)

        yield bar


def _tables(report: Report) -> None:
    show.table(("", "before", "after", ""), report.rows())
    show.line(f"\nPerplexity and damage are measured on {escape(report.text)}.\n")
    if not report.knows_text:
        show.warning(
            f"the model does not know {report.text}: guessing among its {report.vocabulary:,} tokens has a lower "
            "perplexity, so that these figures mean nothing; give --calibrate a text that it will read"
        )
    show.table(("suffers most alone", "nats a token", "of the weights"), report.worst())
    hints = " ".join(f"--ignore {name}" for name in report.ignore())
    show.line(f"\nLeave alone: {hints or 'nothing; no part suffers out of proportion to its size'}")
    show.line(RULE)
    show.line(f"Written to {report.out}, with {REPORT} and {PICTURE}. Serve it as it is.")


def _finish(document: dict[str, object], out: Path, as_json: bool) -> None:
    if as_json:
        show.document(document)
    else:
        lacking = not (out / "tokenizer.json").is_file()
        how = "To be served it lacks tokenizer.json: put the model's into it" if lacking else "Serve it as it is"
        show.line(f"Written to {out}. {how}.")
