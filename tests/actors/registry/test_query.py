"""What people search by, as a tree, and what is none."""

import pytest

from actors.registry.query import MOST_DEPTH, Comparison, Joined, Not, parse
from cluster.errors import InvalidRequest

A, B, C = Comparison("a", "=", "x"), Comparison("b", ">", 0.9), Comparison("c.d", "~", "y z")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a = x", A),
        ("a=x", A),
        ("b > 0.9", B),
        ("b > 90%", B),
        ("c.d ~ 'y z'", C),
        ("a = '0.9'", Comparison("a", "=", "0.9")),
        ("a != -1e-4", Comparison("a", "!=", -1e-4)),
        ("a = x and b > 0.9", Joined("and", (A, B))),
        ("a = x or b > 0.9 and c.d ~ 'y z'", Joined("or", (A, Joined("and", (B, C))))),
        ("(a = x or b > 0.9) AND c.d ~ 'y z'", Joined("and", (Joined("or", (A, B)), C))),
        ("not a = x", Not(A)),
        ("not (a = x and not not b > .9)".replace(".9", "0.9"), Not(Joined("and", (A, B)))),
        ("a = '; drop table strata_versions --'", Comparison("a", "=", "; drop table strata_versions --")),
    ],
)
def test_what_people_write(text, wanted):
    assert parse(text) == wanted


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "at its end"),
        ("a", "at 'a'"),
        ("a =", "at its end"),
        ("= 3", "at '='"),
        ("a = x b = y", "at 'b'"),
        ("(a = x", "at its end"),
        ("a = x)", r"at '\)'"),
        ("a = x and", "at its end"),
        ("a > many", "compare with a number"),
        ("a == x", "at '='"),
        ("a = 'x", "'x is not accepted"),
        ("1a = x", "at '1a'"),
        ("(" * (MOST_DEPTH + 2) + "a = x", "nest at most"),
        ("a = " + "x" * 5000, "keep it below"),
    ],
)
def test_anything_else_says_where(text, where):
    with pytest.raises(InvalidRequest, match=f"^query: .*{where}"):
        parse(text)
