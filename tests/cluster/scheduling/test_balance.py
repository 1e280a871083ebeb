"""Who takes the next sequence, and what is believed of a replica's cache."""

from collections import Counter

from cluster.scheduling.affinity import Prefixes
from cluster.scheduling.balance import Candidate, pick, seconds

ROLLS = range(64)


def chosen(*candidates: Candidate, prompt: int = 500) -> Counter[str]:
    return Counter(pick(candidates, prompt, roll) for roll in ROLLS)


def test_a_prefix_is_followed_where_queues_are_alike() -> None:
    there, elsewhere = Candidate("there", 60, running=3), Candidate("elsewhere", 500, running=3)
    assert chosen(there, elsewhere) == {"there": len(ROLLS)}


def test_a_long_queue_outweighs_a_prefix() -> None:
    there, elsewhere = Candidate("there", 60, queued=2_000, running=8), Candidate("elsewhere", 500, running=8)
    assert chosen(there, elsewhere) == {"elsewhere": len(ROLLS)}


def test_equals_share_by_lot() -> None:
    found = chosen(Candidate("a", 60), Candidate("b", 60))
    assert found["a"] == found["b"]


def test_without_a_prefix_two_are_compared_and_the_worst_of_many_is_not_taken_but_with_itself() -> None:
    crowd = [Candidate(f"r{index}", 500, queued=100 * index) for index in range(8)]
    found = chosen(*crowd)
    assert found["r0"] > found["r7"]
    assert found["r7"] <= 1
    assert len(found) > 4  # not all to the one that seems best: what is known is old


def test_a_slow_replica_is_expected_to_take_longer() -> None:
    assert seconds(Candidate("slow", 100, rate=3.0)) == 3 * seconds(Candidate("fast", 100, rate=1.0))
    assert chosen(Candidate("slow", 60, rate=9.0), Candidate("fast", 300, rate=1.0)) == {"fast": len(ROLLS)}


def test_a_full_cache_counts_against_it() -> None:
    assert seconds(Candidate("full", 100, kv_used=1.0)) > seconds(Candidate("free", 100, kv_used=0.5))


def digests(*names: int) -> list[bytes]:
    return [bytes([name]) for name in names]


def test_only_an_unbroken_beginning_is_matched() -> None:
    known = Prefixes(10)
    known.note(digests(1, 2, 3))
    assert known.matched(digests(1, 2, 9, 3)) == 2
    assert known.matched(digests(9, 1, 2)) == 0
    assert known.matched([]) == 0


def test_the_longest_unused_goes_first_and_tails_before_heads() -> None:
    known = Prefixes(4)
    known.note(digests(1, 2))
    known.note(digests(3, 4))
    known.note(digests(1, 5))
    assert len(known) == 4
    assert known.matched(digests(1, 5)) == 2
    assert known.matched(digests(1, 2)) == 1
    assert known.matched(digests(3, 4)) == 2


def test_what_a_replica_has_forgotten_is_believed_no_more() -> None:
    known = Prefixes(100)
    for first in range(0, 100, 2):
        known.note(digests(first, first + 1))
    assert known.matched(digests(0, 1)) == 2
    known.told(found=0, expected=2)
    assert len(known) == 90
    assert known.matched(digests(0, 1)) == 0
    for _ in range(5):
        known.told(found=2, expected=2)
    known.note(digests(0, 1, *range(100, 140)))
    assert len(known) == 100
