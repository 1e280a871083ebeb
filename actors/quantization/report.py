"""What rounding a model did to it: one value that is a table, a JSON document and a picture.

Knows numbers; takes none. `picture` draws it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from actors.quantization.sample import OWN_TEXT
from actors.quantization.sensitivity import Sensitivity, leave_alone


@dataclass(frozen=True, slots=True)
class Side:
    """A folder before or after.

    `peak_bytes`: what loading and reading one row of tokens added to a process's memory at most. `perplexity` is of the
    tokens that count in the sample. `exact_match` is in percent over `asked` questions, None where none were asked.
    """

    weight_bytes: int
    peak_bytes: int
    load_seconds: float
    perplexity: float
    exact_match: float | None
    asked: int
    tasks: dict[str, float]
    tokens_a_second: dict[str, float]


@dataclass(frozen=True, slots=True)
class Report:
    """`float32_bytes`: what all weights would take in float32, the yardstick of a size."""

    model: str
    out: str
    to: str
    method: str
    float32_bytes: int
    before: Side
    after: Side
    sensitivities: Sequence[Sensitivity]
    left: Sequence[str]  # linear layers that stayed in floats
    text: str = OWN_TEXT  # what perplexity and sensitivities were measured on
    vocabulary: int | None = None  # tokens that the model chooses among

    @property
    def knows_text(self) -> bool:
        """Whether the model foretells the text better than a guess among all its tokens would."""
        return self.vocabulary is None or self.before.perplexity < self.vocabulary

    @property
    def suggested(self) -> list[Sensitivity]:
        """Parts to leave alone."""
        return leave_alone(self.sensitivities)

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self) | {"leave_alone": [f"{label(one)}" for one in self.suggested], "ignore": self.ignore()}

    def ignore(self) -> list[str]:
        """The suggestion as values of `--ignore`."""
        return [one.names[0] for one in self.suggested]

    def rows(self) -> list[tuple[str, str, str, str]]:
        """(what, before, after, how the two compare), for a table."""
        old, new = self.before, self.after
        rows = [
            ("weights", _megabytes(old.weight_bytes), _megabytes(new.weight_bytes),
             f"{100 * new.weight_bytes / self.float32_bytes:.1f} % of float32"),
            ("memory at its peak", _megabytes(old.peak_bytes), _megabytes(new.peak_bytes),
             _percent(new.peak_bytes, old.peak_bytes)),
            ("load", f"{old.load_seconds:.2f} s", f"{new.load_seconds:.2f} s",
             _times(old.load_seconds, new.load_seconds)),
            ("perplexity", f"{old.perplexity:.4f}", f"{new.perplexity:.4f}",
             f"{100 * (new.perplexity / old.perplexity - 1):+.2f} %"),
        ]  # fmt: skip
        if old.exact_match is not None and new.exact_match is not None:
            rows.append(
                ("exact match", f"{old.exact_match:.2f} %", f"{new.exact_match:.2f} %",
                 _percent(new.exact_match, old.exact_match, 2))
            )  # fmt: skip
        for batch, speed in old.tokens_a_second.items():
            other = new.tokens_a_second.get(batch, 0.0)
            rows.append((f"tokens/s, {batch} at a time", f"{speed:.0f}", f"{other:.0f}", _times(other, speed)))
        return rows

    def worst(self, most: int = 8) -> list[tuple[str, str, str]]:
        """(part, nats a token, share of the weights) of the parts that suffer most."""
        size = sum(one.parameters for one in self.sensitivities)
        ordered = sorted(self.sensitivities, key=lambda one: -one.divergence)[:most]
        return [(label(one), f"{one.divergence:.2e}", f"{100 * one.parameters / size:.1f} %") for one in ordered]


def label(one: Sensitivity) -> str:
    """A part's short name."""
    return one.part if one.layer < 0 else f"layer {one.layer} {one.part}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _percent(part: float, whole: float, digits: int = 0) -> str:
    return f"{100 * part / whole:.{digits}f} % of before" if whole else ""


def _times(fast: float, slow: float) -> str:
    return f"{fast / slow:.2f}x" if slow else ""
