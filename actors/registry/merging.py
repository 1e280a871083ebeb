"""How the weights of two versions become one's: the strategies, and their arithmetic on one tensor at a time.

Knows numbers. Knows no files and no refs. Average: Izmailov et al. 2018 (one basin), task vectors: Ilharco et al. 2023.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from actors.registry.finite import told
from cluster.errors import InvalidRequest, ModelInvalid

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

    `clean` merges what only one side changed. `ours` and `theirs` do that too, and take one side of what both changed,
    and that side whole where both are of two architectures.
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
    what: str,
) -> Change:
    """What `linear` and `task` make of a tensor of ours; `task` counts their change from `base`.

    `what`: the name of theirs. Raises ModelInvalid as `finite` does.
    """

    def average(name: str, own: "torch.Tensor") -> "torch.Tensor":
        other = read(theirs[name])
        made = own.float().lerp(other.float(), strategy.weight)
        return finite(name, made.to(own.dtype), {"ours": own, what: other})

    def add(name: str, own: "torch.Tensor") -> "torch.Tensor":
        other, was = read(theirs[name]), read(base[name])
        made = own.float() + strategy.weight * (other.float() - was.float())
        return finite(name, made.to(own.dtype), {"ours": own, what: other, f"what {what} and ours come from": was})

    return average if strategy.name == "linear" else add


def finite(name: str, made: "torch.Tensor", sides: Mapping[str, "torch.Tensor"]) -> "torch.Tensor":
    """`made` of these sides, if all its values are finite. Raises ModelInvalid naming the side that has others."""
    if not made.numel() or all(bool(end.isfinite()) for end in made.aminmax()):  # which hand NaN on
        return made
    for side, tensor in sides.items():
        if wrong := tensor.numel() - int(tensor.isfinite().sum()):
            problem = f"{name} is {told(wrong, tensor.numel())}, of which nothing can be computed"
            raise ModelInvalid(side, problem, "mend it, or take one side as it is (ours or theirs)")
    kind = str(made.dtype).removeprefix("torch.")
    problem = f"{name} comes to numbers that are too large for its type ({kind})"
    raise ModelInvalid("the merge", problem, "take a smaller weight")


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


def changed_by(was: bytes, now: bytes, dtype: str) -> float | tuple[int, int]:
    """Of two tensors of one type and shape: the norm of the difference over that of what it was, or over 1 for zero.

    Where values of one are not finite there is no such number: how many differences are not, and of how many.
    """
    if not was:
        return 0.0
    old, new = (tensor_of(bytearray(content), dtype, (-1,)).double() for content in (was, now))
    change = new - old
    found = float(change.norm()) / (float(old.norm()) or 1.0)
    if math.isfinite(found):
        return found
    if wrong := change.numel() - int(change.isfinite().sum()):
        return wrong, change.numel()
    largest = max(float(change.abs().max()), float(old.abs().max()))  # of F64, whose squares may be too large
    return float((change / largest).norm()) / (float((old / largest).norm()) or 1.0)
