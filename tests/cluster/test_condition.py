import pytest

from cluster.condition import Condition, parse, quantity
from cluster.errors import InvalidRequest


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("p99_latency > 500ms", Condition("p99_latency", ">", 0.5)),
        ("error_rate>1%", Condition("error_rate", ">", 0.01)),
        (" eval.exact_match  <  baseline - 0.02 ", Condition("eval.exact_match", "<", -0.02, baseline=True)),
        ("eval.loss >= baseline + 3 %", Condition("eval.loss", ">=", 0.03, baseline=True)),
        ("eval.loss <= baseline", Condition("eval.loss", "<=", 0.0, baseline=True)),
        ("wait > 2m", Condition("wait", ">", 120.0)),
        ("wait > 15us", Condition("wait", ">", 15e-6)),
    ],
)
def test_what_people_write(text, wanted):
    found = parse(text, "--abort-if")
    assert (found.metric, found.compare, found.baseline) == (wanted.metric, wanted.compare, wanted.baseline)
    assert found.number == pytest.approx(wanted.number)
    again = parse(str(found), "again")
    assert (again.metric, again.compare, again.baseline) == (wanted.metric, wanted.compare, wanted.baseline)
    assert again.number == pytest.approx(wanted.number)


@pytest.mark.parametrize(
    "text", ["", "latency", "> 5", "latency > ", "latency == 5", "latency > -5", "latency > 5 kg", "a > 1; b > 2",
             "latency > baseline * 2", "Latency > 5", "a..b > 1", "latency > 1e3", "latency > nan"],
)  # fmt: skip
def test_anything_else_names_the_field_and_the_form(text):
    with pytest.raises(InvalidRequest, match=r"--abort-if: .*METRIC"):
        parse(text, "--abort-if")


def test_a_metric_that_there_is_not_is_told_apart():
    with pytest.raises(InvalidRequest, match="no metric latency; there is error_rate, wait"):
        parse("latency > 1", "--abort-if", {"wait", "error_rate"})


def test_what_is_not_known_neither_holds_nor_fails():
    above, below = parse("loss > 2", "x"), parse("loss < baseline - 1", "x")
    assert [above.holds({"loss": value}) for value in (1.0, 2.0, 3.0)] == [False, False, True]
    assert above.holds({}) is None
    assert below.holds({"loss": 1.0}) is None
    assert below.holds({"loss": 1.0}, {}) is None
    assert [below.holds({"loss": value}, {"loss": 3.0}) for value in (1.0, 2.0)] == [True, False]


@pytest.mark.parametrize(
    ("text", "number"),
    [("0.9", 0.9), ("90%", 0.9), ("500ms", 0.5), ("1e-4", 1e-4), ("-2", -2.0), ("2M", 120.0), ("mit", None), ("", None),
     ("1 2", None), ("nan", None), ("0x10", None)],
)  # fmt: skip
def test_a_number_with_its_unit(text, number):
    assert quantity(text) == (number if number is None else pytest.approx(number))
