"""Three-way merges of named values: what Git's users expect, and what holds of all of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.registry.threeway import three_way

NAMES = st.sampled_from("abcd")
SIDES = st.dictionaries(NAMES, st.integers(0, 3))
BASES = st.lists(SIDES, max_size=3)


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "merged", "both"),
    [
        ({"a": 1}, {"a": 1}, {"a": 2}, {"a": 2}, []),
        ({"a": 1}, {"a": 2}, {"a": 1}, {"a": 2}, []),
        ({"a": 1}, {"a": 2}, {"a": 2}, {"a": 2}, []),
        ({"a": 1}, {"a": 2}, {"a": 3}, {}, ["a"]),
        ({"a": 1}, {"a": 1}, {}, {}, []),
        ({"a": 1}, {}, {"a": 1}, {}, []),
        ({"a": 1}, {}, {"a": 2}, {}, ["a"]),
        ({"a": 1}, {}, {}, {}, []),
        ({}, {"a": 1}, {"b": 2}, {"a": 1, "b": 2}, []),
        ({}, {"a": 1}, {"a": 2}, {}, ["a"]),
    ],
)
def test_one_base(base, ours, theirs, merged, both):
    assert three_way([base], ours, theirs) == (merged, both)


def test_without_a_base_nothing_was_there():
    assert three_way([], {"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}) == ({"a": 1, "c": 4}, ["b"])


def test_bases_that_do_not_agree_leave_it_to_both():
    bases = [{"a": 1, "b": 5}, {"a": 2, "b": 5}]
    assert three_way(bases, {"a": 1, "b": 5}, {"a": 2, "b": 6}) == ({"b": 6}, ["a"])


@given(BASES, SIDES, SIDES)
def test_it_matters_not_which_side_is_ours(bases, ours, theirs):
    merged, both = three_way(bases, ours, theirs)
    again, also = three_way(bases, theirs, ours)
    assert (merged, sorted(both)) == (again, sorted(also))
    assert not set(merged) & set(both)


@given(SIDES, SIDES)
def test_a_side_that_changed_nothing_leaves_it_to_the_other(base, other):
    assert three_way([base], base, other) == (other, [])
    assert three_way([base], other, base) == (other, [])


@given(BASES, SIDES)
def test_of_the_same_twice_it_comes(bases, side):
    assert three_way(bases, side, side) == (side, [])


@given(BASES, SIDES, SIDES)
def test_what_is_merged_comes_from_a_side_and_no_change_is_lost(bases, ours, theirs):
    merged, both = three_way(bases, ours, theirs)
    for name in {**ours, **theirs}:
        value, sides = merged.get(name), (ours.get(name), theirs.get(name))
        for side, other in (sides, sides[::-1]):
            changed = side not in [base.get(name) for base in bases] or not bases
            assert not (changed and side is not None) or name in both or value == side or other == side
        assert name in both or value in sides
