import pytest

from cluster.condition import Condition, Kind, parse, quantity, require
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


@pytest.mark.parametrize(
    ("text", "kind", "remedy"),
    [
        ("wait > 500", Kind.TIME, "wait is a time: give its unit, say 500ms or 500s"),
        ("wait > baseline + 0.5", Kind.TIME, "say 0.5ms or 0.5s"),
        ("wait > baseline + 20%", Kind.TIME, "say 20ms or 20s"),
        ("rate > 1", Kind.SHARE, "rate is a share: say 1% or 0.01"),
        ("rate >= 2.5", Kind.SHARE, "say 2.5% or 0.025"),
        ("rate < baseline - 2", Kind.SHARE, "say 2% or 0.02"),
        ("rate > 1s", Kind.SHARE, "say 1% or 0.01"),
        ("rate > 100%", Kind.SHARE, "within 0 and 1"),
        ("rate > 150%", Kind.SHARE, "within 0 and 1"),
        ("rate < 0", Kind.SHARE, "within 0 and 1"),
        ("rate > baseline + 120%", Kind.SHARE, "within 0 and 1"),
        ("tokens > 20s", Kind.COUNT, "tokens is a count: leave the unit out, say 20"),
    ],
)
def test_a_number_that_nobody_means_is_refused_with_what_was_meant(text, kind, remedy):
    with pytest.raises(InvalidRequest) as refused:
        require(text, "--abort-if", kind)
    assert remedy in str(refused.value)
    assert text in str(refused.value)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("wait > 500ms", Kind.TIME), ("wait > 500 ms", Kind.TIME), ("wait > 2m", Kind.TIME),
        ("wait > baseline", Kind.TIME), ("wait > baseline + 50ms", Kind.TIME), ("rate > 1%", Kind.SHARE),
        ("rate > 0", Kind.SHARE), ("rate < 1", Kind.SHARE), ("rate >= 100%", Kind.SHARE),
        ("rate < baseline - 0.02", Kind.SHARE), ("rate > baseline", Kind.SHARE), ("tokens > 20", Kind.COUNT),
    ],
)  # fmt: skip
def test_a_number_that_is_of_its_kind_is_taken(text, kind):
    require(text, "--abort-if", kind)
