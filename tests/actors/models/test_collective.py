"""Our own sums between two to four processes: right, the same bit for bit on every rank, whatever the counters say."""

import errno
from pathlib import Path

import pytest

from actors.models.kernels.collective import Collective
from actors.models.kernels.interface import available
from actors.models.parallel import Alone
from tests.actors.models.ranks import Ranks

SPIN, SLEEP = 50_000, 0  # nanoseconds before a wait sleeps


@pytest.fixture(autouse=True)
def _kernels():
    if not available():
        pytest.skip("this machine has no AVX2 or no compiler: deepspeed's sums run instead")


@pytest.mark.parametrize(
    ("size", "calls", "patience", "start"),
    [
        pytest.param(1, 1_000, SPIN, 0, id="one"),
        pytest.param(2, 10_000, SPIN, 0, id="two"),
        pytest.param(2, 2_000, SLEEP, 0, id="two-asleep"),
        pytest.param(3, 2_000, SPIN, 2**32 - 777, id="three-over-the-end-of-the-counter"),
        pytest.param(4, 10_000, SPIN, 0, id="four"),
        pytest.param(4, 2_000, SLEEP, 2**31 - 777, id="four-asleep-over-the-sign"),
    ],
)
def test_sums_are_plain_sums(four, tmp_path: Path, size: int, calls: int, patience: int, start: int) -> None:
    digests = four.ask("sums", tmp_path / "sum", size, calls, patience, start)
    assert digests[size:] == [None] * (4 - size)
    assert len(set(digests[:size])) == 1


@pytest.mark.parametrize("ranks", ["pair", "four"])
def test_what_rank_0_tells_is_heard_by_all(ranks: str, request: pytest.FixtureRequest) -> None:
    values = [1, 0, 2**24 - 1, 131_071, 2**23 + 1]
    ways = ["ours", "deepspeed", "gloo", "ours"]
    for heard in request.getfixturevalue(ranks).ask("share", values, ways):
        assert heard == [values] * len(ways)
    assert Alone().share(values, len(values)) == values


def test_four_collect(four) -> None:
    for rank in four.ask("collect"):
        assert rank["left_behind"] == []


def test_where_deepspeeds_op_has_no_room_ours_has(tmp_path: Path) -> None:
    """A container has 64 MiB of shared memory by default, its op takes 68 for a rank, ours 2."""
    crowded = Ranks(tmp_path, 2, crowded=True)
    for rank in crowded.ask("collect"):
        assert rank["ours"]
        assert not rank["shared_memory"]
    for heard in crowded.ask("share", [5, 2**24 - 1], ["ours", "gloo"]):
        assert heard == [[5, 2**24 - 1]] * 2
    crowded.close()


def test_where_memory_is_full_there_is_none_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    Collective.make(tmp_path / "sum", 2)
    assert list(tmp_path.iterdir()) == []
    assert Collective.open(tmp_path / "sum", 0, 2) is None


def test_more_ranks_than_doors_get_none(tmp_path: Path) -> None:
    Collective.make(tmp_path / "sum", 65)
    assert list(tmp_path.iterdir()) == []
