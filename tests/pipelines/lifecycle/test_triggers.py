"""What is due, from what there is, what was seen and what time it is."""

import json

import pytest

from pipelines.lifecycle.declared import Triggers
from pipelines.lifecycle.triggers import Due, Facts, Seen, due, first

DRIFT = {"rule": "p90_ttft > 2s", "answers": 50, "rest": "1h"}


def test_what_is_there_when_the_watch_begins_is_nothing_new():
    on = Triggers(data=True, after="other", every="1h", schedule="0 * * * *")
    facts = Facts(data="aaa", done={"other": "other-3"})
    assert due(on, facts, first(on, facts, 0.0), 1.0) == (None, first(on, facts, 0.0))


def test_new_data_are_due_once():
    on = Triggers(data=True)
    found, seen = due(on, Facts(data="b" * 64), Seen(0.0, "a" * 64), 1.0)
    assert found == Due(f"new data {'b' * 12}")
    assert due(on, Facts(data="b" * 64), seen, 2.0) == (None, seen)
    assert due(on, Facts(data=None), seen, 2.0) == (None, seen), "what cannot be read is not new"


def test_what_happens_during_a_run_is_due_afterwards_and_once():
    on, seen = Triggers(every="1m"), Seen(0.0)
    assert due(on, Facts(busy=True), seen, 1_000.0) == (None, seen)
    found, seen = due(on, Facts(), seen, 1_000.0)
    assert found == Due("every 1m")
    assert due(on, Facts(), seen, 1_059.0)[0] is None
    assert due(on, Facts(), seen, 1_060.0)[0] == Due("every 1m")


def test_a_schedule_that_was_missed_is_due_once():
    on = Triggers(schedule="0 * * * *")
    found, seen = due(on, Facts(), Seen(10.0), 4 * 3600.0)
    assert found == Due("schedule 0 * * * *")
    assert due(on, Facts(), seen, 4 * 3600.0 + 60)[0] is None


def test_each_state_of_a_merge_request_is_due_once():
    on, facts = Triggers(merge_request=True), Facts(requests={4: "c" * 40, 2: "a" * 40})
    one, seen = due(on, facts, Seen(0.0), 1.0)
    two, seen = due(on, facts, seen, 1.0)
    assert one is not None and two is not None
    assert (one.request, two.request) == (2, 4)
    assert due(on, facts, seen, 1.0)[0] is None
    again, seen = due(on, Facts(requests={4: "d" * 40}), seen, 1.0)
    assert again == Due(f"merge request !4 at {'d' * 12}", 4)
    assert dict(seen.requests) == {4: "d" * 40}, "what is closed is forgotten"


def test_a_pipeline_that_another_waits_for():
    on = Triggers(after="first")
    found, seen = due(on, Facts(done={"first": "first-2", "other": "other-9"}), Seen(0.0, done="first-1"), 1.0)
    assert found == Due("first-2 is done")
    assert due(on, Facts(done={"first": "first-2"}), seen, 1.0)[0] is None


@pytest.mark.parametrize(("statistics", "answers", "begins"), [
    ({"p90_ttft": 3.0}, 50, True),
    ({"p90_ttft": 3.0}, 49, False),
    ({"p90_ttft": 1.0}, 500, False),
    ({}, 500, False),
])  # fmt: skip
def test_drift_wants_enough_answers(statistics, answers, begins):
    on = Triggers.model_validate({"drift": DRIFT})
    found, _ = due(on, Facts(statistics=statistics, answers=answers), Seen(0.0), 1.0)
    assert (found is not None) is begins
    assert found is None or found.why == "drift: p90_ttft > 2s, it is 3 s"


def test_drift_rests_after_a_run():
    on, facts = Triggers.model_validate({"drift": DRIFT}), Facts(statistics={"p90_ttft": 3.0}, answers=50)
    _, seen = due(on, facts, Seen(0.0), 1.0)
    assert due(on, facts, seen, 3_600.0)[0] is None
    assert due(on, facts, seen, 3_601.0)[0] is not None


def test_what_was_seen_outlives_a_restart():
    seen = Seen(1.5, "a", {3: "c"}, "first-1", 2.5)
    assert Seen.of(json.loads(json.dumps(seen.plain))) == seen
