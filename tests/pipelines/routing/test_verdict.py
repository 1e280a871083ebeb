import json
import random

import pytest

from cluster.errors import InvalidRequest
from pipelines.routing.evidence import Arm, Score, Sketch
from pipelines.routing.verdict import State, guards, judge, kept, rule


def arm(count: int, *, ttft: float = 0.1, errors: int = 0, seed: int = 1, spread: float = 0.3, **more) -> Arm:
    dice = random.Random(seed)
    waits = [ttft * dice.lognormvariate(0, spread) for _ in range(count)]
    gaps = [0.01 * dice.lognormvariate(0, spread) for _ in range(count)]
    return Arm(count, errors, latency=Sketch.of(*waits), ttft=Sketch.of(*waits), itl=Sketch.of(*gaps), **more)


def states(found) -> set[State]:
    return {each.state for each in found}


def test_what_is_alike_breaks_nothing_and_what_is_twice_as_slow_does():
    old = arm(2_000)
    assert State.BROKEN not in states(judge(guards(0.2), arm(100, seed=2), old, 0.002))
    found = judge(guards(0.2), arm(40, ttft=0.2, seed=2), old, 0.002)
    broken, *more = [each for each in found if each.state is State.BROKEN]
    assert {each.rule.split()[0] for each in more} <= {"p90_ttft", "p50_latency"}
    assert broken.rule == "p50_ttft > 1.2 baseline + 0.005"
    assert broken.value.low > broken.limit.high
    assert "broken" in str(broken)


def test_what_fails_is_seen_after_a_few_answers_and_by_chance_alone_never():
    found = judge(guards(0.2), Arm(20, 20), arm(2_000, errors=10), 0.002)
    assert [each.rule for each in found if each.state is State.BROKEN] == ["error_rate > baseline + 0.01"]
    assert State.BROKEN not in states(judge(guards(0.2), Arm(20, 1), arm(2_000, errors=10), 0.002))


def test_a_doubt_is_what_looks_broken_and_is_not_proven():
    (found,) = judge([rule("error_rate > 1%", "abort_if")], Arm(20, 1), Arm(), 0.01)
    assert found.state is State.DOUBTFUL
    (found,) = judge([rule("error_rate > baseline", "abort_if")], Arm(20, 1), Arm(), 0.01)
    assert (found.state, str(found)) == (State.UNKNOWN, "error_rate > baseline: no answers yet")


@pytest.mark.parametrize(
    ("text", "new", "state"),
    [
        ("p99_latency > 500ms", Arm(30, latency=Sketch.of(*[0.9] * 30)), State.BROKEN),
        ("p99_latency > 500ms", Arm(30, latency=Sketch.of(*[0.4] * 30)), State.KEPT),
        ("eval.exact_match < baseline - 0.02", Arm(scores={"eval.exact_match": Score(400, 100)}), State.BROKEN),
        ("eval.exact_match < baseline - 0.02", Arm(scores={"eval.exact_match": Score(400, 361)}), State.KEPT),
        ("eval.all < baseline - 0.02", Arm(scores={"eval.all": Score(100, 87, 100)}), State.BROKEN),
        ("eval.all < baseline - 0.02", Arm(scores={"eval.all": Score(100, 88, 100)}), State.KEPT),
        ("eval.all < baseline - 0.02", Arm(scores={"eval.all": Score(50, 42, 100)}), State.DOUBTFUL),
        ("eval.all < baseline - 0.02", Arm(scores={"eval.all": Score(16, 0, 100)}), State.BROKEN),
        ("shadow.agreement < 0.9", Arm(scores={"shadow.agreement": Score(300, 200.5)}), State.BROKEN),
        ("refusal_rate > 10%", Arm(100, 50, 30), State.BROKEN),
        ("cut_rate >= 99%", Arm(100, 0, 0, 100), State.DOUBTFUL),
        ("loss_rate > 5%", Arm(100, losses=30), State.BROKEN),
    ],
)
def test_rules_that_people_write(text, new, state):
    old = Arm(400, scores={"eval.exact_match": Score(400, 360), "eval.all": Score(100, 90, 100)})
    (found,) = judge([rule(text, "--abort-if")], new, old, 0.01)
    assert found.state is state


@pytest.mark.parametrize(
    "text", ["p42_latency > 1s", "latency > 1s", "eval > 1", "error_rat > 1%", "p99_cost > 1", "feedback.tumbs < 1"]
)
def test_a_rule_that_names_no_metric_is_refused_with_those_there_are(text):
    with pytest.raises(InvalidRequest, match=r"--abort-if: .* there is no metric .* error_rate"):
        rule(text, "--abort-if")


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("p99_latency > 500", "say 500ms or 500s"), ("p50_ttft > baseline + 0.1", "say 0.1ms or 0.1s"),
        ("p90_itl > 5", "give its unit"), ("p50_tokens > 5s", "leave the unit out"),
        ("error_rate > 1", "say 1% or 0.01"), ("refusal_rate > 5", "say 5% or 0.05"), ("cut_rate > 5", "share"),
        ("eval.sums < 80", "say 80% or 0.8"), ("shadow.agreement < 90", "say 90% or 0.9"),
        ("feedback.thumbs < 60", "say 60% or 0.6"),
    ],
)  # fmt: skip
def test_a_rule_that_would_never_be_broken_is_refused_with_what_was_meant(text, remedy):
    with pytest.raises(InvalidRequest) as refused:
        rule(text, "abort_if[0]")
    assert remedy in str(refused.value)
    assert f"abort_if[0]: {text}" in str(refused.value)
    assert str(kept(text)), "what a rollout under way has goes on"


def test_sums_add_up_in_any_order_and_survive_the_wire():
    one, two = arm(50, errors=3), arm(70, seed=4, scores={"eval.a": Score(2, 1.5), "eval.b": Score(3, 2, 9)})
    assert one + two == two + one
    assert Arm() + one == one
    assert Arm.of(json.loads(json.dumps((one + two).plain))) == one + two


def test_a_sketch_bounds_its_quantiles():
    values = [random.Random(2).lognormvariate(0, 1) for _ in range(1)] + [1.0] * 99 + [8.0] * 100
    found = Sketch.of(*values).quantile(0.9, 0.01)
    assert found.low <= 8.0 <= found.high
    assert found.looks == pytest.approx(8.0, rel=0.05)
    assert Sketch.of(0.0, 1e-9).quantile(0.5, 0.1).low >= 0
    assert Sketch().quantile(0.5, 0.1) is None


def test_a_version_that_is_alike_is_taken_back_no_more_often_than_stated():
    """100 rollouts of 400 answers, looked at 20 times each, at an alpha that shows; and a slow one never stays."""
    alpha, alarms, missed = 0.1, 0, 0
    for seed in range(100):
        dice = random.Random(seed)
        old, same, slow = Arm(), Arm(), Arm()
        caught = False
        alarm = False
        for _ in range(20):
            old += arm(60, seed=dice.random(), errors=dice.random() < 0.3)
            same += arm(20, seed=dice.random(), errors=dice.random() < 0.1)
            slow += arm(20, ttft=0.15, seed=dice.random())
            alarm = alarm or State.BROKEN in states(judge(guards(0.0), same, old, alpha))
            caught = caught or State.BROKEN in states(judge(guards(0.0), slow, old, alpha))
        alarms += alarm
        missed += not caught
    assert alarms / 100 <= alpha
    assert missed == 0
