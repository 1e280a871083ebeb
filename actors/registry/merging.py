"""How the weights of two versions become one's: the strategies, and their arithmetic on one tensor at a time.

Knows numbers. Knows no files and no refs. Average: Izmailov et al. 2018 (one basin), task vectors: Ilharco et al. 2023.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from cluster.errors import InvalidRequest

if TYPE_CHECKING:
    import torch

CLEAN = "clean"
STRATEGIES = (CLEAN, "ours", "theirs", "linear", "task", "lora")
COUNTED = {"linear": 0.5, "task": 1.0, "lora": 1.0}  # strategies that count theirs, and what they do unless told
FLOATS = ("F64", "F32", "F16", "BF16")
Change = Callable[[str, "torch.Tensor"], "torch.Tensor"]  # of a tensor of ours, by its name
Kept = TypeVar("Kept")


@dataclass(frozen=True, slots=True)
class Strategy:
    """How: a name of STRATEGIES, and how much of theirs (linear: its share; task, lora: what its change counts).

    `clean` merges what only one side changed. `ours` and `theirs` do that too, and take one side of what both changed.
    """

    name: str = CLEAN
    weight: float = 0.5

    @classmethod
    def wanted(cls, name: str, weight: float | None = None) -> "Strategy":
        """As somebody asks for it. Raises InvalidRequest, also for a weight that the strategy would not look at."""
        if weight is not None and name in STRATEGIES and name not in COUNTED:
            raise InvalidRequest("weight", weight, f"{name} takes a side whole: leave it out, or take linear or task")
        return cls(name, COUNTED.get(name, 0.5) if weight is None else weight)

    def __str__(self) -> str:
        return f"{self.name}, {self.weight:g} of theirs" if self.name in COUNTED else self.name

    def __post_init__(self) -> None:
        if self.name not in STRATEGIES:
            raise InvalidRequest("strategy", self.name, f"take one of {', '.join(STRATEGIES)}")
        if not -10.0 <= self.weight <= 10.0:  # also refuses NaN
            raise InvalidRequest(
                "weight", self.weight, "take a number between -10 and 10, of linear one between 0 and 1"
            )
        if self.name == "linear" and not 0.0 <= self.weight <= 1.0:
            raise InvalidRequest("weight", self.weight, "the share of theirs lies between 0 and 1")


def blend(
    strategy: Strategy,
    theirs: Mapping[str, Kept],
    base: Mapping[str, Kept],
    read: Callable[[Kept], "torch.Tensor"],
) -> Change:
    """What `linear` and `task` make of a tensor of ours; `task` counts their change from `base`."""
    if strategy.name == "linear":
        return lambda name, own: own.float().lerp(read(theirs[name]).float(), strategy.weight)

    def add(name: str, own: "torch.Tensor") -> "torch.Tensor":
        return own.float() + strategy.weight * (read(theirs[name]).float() - read(base[name]).float())

    return add


def tensor_of(content: bytearray, dtype: str, shape: tuple[int, ...]) -> "torch.Tensor":
    """The tensor whose bytes these are; it is in their memory. `dtype` as safetensors has it."""
    import torch  # noqa: PLC0415 - heavy, and most of the registry does without

    from actors.models.headers import TYPES  # noqa: PLC0415 - likewise

    if not content:
        return torch.empty(shape, dtype=TYPES[dtype])
    return torch.frombuffer(content, dtype=TYPES[dtype]).view(shape)


def bytes_of(tensor: "torch.Tensor") -> memoryview:
    """As safetensors has them: row by row."""
    import torch  # noqa: PLC0415 - heavy, and most of the registry does without

    flat: Any = tensor.contiguous().view(-1).view(torch.uint8).numpy()
    return memoryview(flat)


def changed_by(was: bytes, now: bytes, dtype: str) -> float:
    """Of two tensors of one type and shape: the norm of the difference over that of what it was, or over 1 for zero."""
    if not was:
        return 0.0
    old, new = (tensor_of(bytearray(content), dtype, (-1,)).double() for content in (was, now))
    return float((new - old).norm()) / (float(old.norm()) or 1.0)
