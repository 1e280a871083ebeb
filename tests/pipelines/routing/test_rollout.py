import itertools
import json
import random
from dataclasses import replace

import pytest

from cluster.errors import Conflict
from pipelines.routing.evidence import Arm, Score, Sketch
from pipelines.routing.rollout import (
    AT_A_STEP,
    COMMANDS,
    ENDS,
    MOVES,
    Event,
    Rollout,
    Seen,
    State,
    Terms,
    command,
    decide,
    moved,
)  # fmt: skip

TERMS = Terms("chat", "v6", "v7", steps=(1, 10, 100), every_seconds=60, answers=20)
GOOD = Arm(30, ttft=Sketch.of(*[0.1] * 30), itl=Sketch.of(*[0.01] * 30))
BAD = Arm(30, 30)


def rollout(state: State = State.RAMPING, **more) -> Rollout:
    return replace(Rollout("chat-v7", TERMS, state, entered=100.0, began=90.0), **more)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_state_with_every_event(state, event):
    there = rollout(state)
    if event in COMMANDS and (state, event) not in MOVES:
        with pytest.raises(Conflict, match="chat-v7"):
            command(there, event, "ann", 200.0)
        return
    if (state, event) not in MOVES:
        with pytest.raises(KeyError):
            moved(there, event, "", 200.0)
        return
    after, (record,) = moved(there, event, "why", 200.0)
    assert after.state is MOVES[state, event]
    assert (record.was, record.now, record.event) == (state, after.state, event)
    assert after.over == (after.state in ENDS) == (after.ended is not None)
    assert Rollout.of(json.loads(json.dumps(after.plain))) == after


def test_the_ends_are_ends_and_every_other_state_leads_to_one():
    assert not [state for state, _ in MOVES if state in ENDS]
    for start in State:
        reached, last = {start}, set[State]()
        while reached != last:
            last = set(reached)
            reached |= {after for (before, _), after in MOVES.items() if before in reached}
        assert reached & set(ENDS)


@pytest.mark.parametrize(
    ("state", "seen", "now", "event"),
    [
        (State.PENDING, Seen(), 150.0, None),
        (State.PENDING, Seen(warm=True), 150.0, Event.WARM),
        (State.PENDING, Seen(), 701.0, Event.LATE),
        (State.RAMPING, Seen(new=GOOD, old=GOOD), 159.0, None),
        (State.RAMPING, Seen(new=GOOD, old=GOOD), 160.0, Event.GOOD),
        (State.RAMPING, Seen(new=Arm(19), old=GOOD), 160.0, Event.SHORT),
        (State.RAMPING, Seen(new=Arm(40, 1), old=Arm(400)), 160.0, Event.SHORT),
        (State.RAMPING, Seen(new=BAD, old=Arm(400)), 101.0, Event.BROKEN),
        (State.RAMPING, Seen(lost=11.0), 101.0, Event.LOST),
        (State.HOLDING, Seen(new=Arm(19), old=GOOD), 900.0, None),
        (State.HOLDING, Seen(new=GOOD, old=GOOD), 900.0, Event.GOOD),
        (State.HOLDING, Seen(new=BAD, old=Arm(400)), 900.0, Event.BROKEN),
        (State.PAUSED, Seen(new=GOOD, old=GOOD), 900.0, None),
        (State.PAUSED, Seen(new=BAD, old=Arm(400)), 900.0, Event.BROKEN),
        (State.PROMOTING, Seen(), 900.0, None),
        (State.PROMOTING, Seen(told=True), 900.0, Event.TOLD),
        (State.ROLLING_BACK, Seen(new=BAD), 900.0, None),
        (State.ROLLING_BACK, Seen(told=True), 900.0, Event.TOLD),
        (State.PROMOTED, Seen(new=BAD, old=Arm(400), lost=99.0), 900.0, None),
        (State.ROLLED_BACK, Seen(warm=True, told=True), 900.0, None),
    ],
)
def test_what_is_seen_decides(state, seen, now, event):
    there = rollout(state)
    after, records = decide(there, seen, now)
    assert [record.event for record in records] == ([event] if event else [])
    assert (after == there) == (event is None)


def test_a_replica_that_is_lost_is_kept_with_what_was_answered():
    _, (record,) = decide(rollout(), Seen(lost=11.0, new=GOOD, old=GOOD), 101.0)
    assert any("p50_ttft" in said for said in record.findings)


def test_from_the_first_step_to_all():
    there, shares = rollout(State.PENDING), []
    for seen, now in [
        (Seen(warm=True), 100.0), (Seen(new=GOOD, old=GOOD), 160.0), (Seen(new=GOOD, old=GOOD), 220.0),
        (Seen(new=GOOD), 280.0), (Seen(told=True), 281.0),
    ]:  # fmt: skip
        there, _ = decide(there, seen, now)
        shares.append(there.share)
    assert shares == [1, 10, 100, 100, 100]
    assert (there.state, there.ended) == (State.PROMOTED, 281.0)
    assert "no rule looks broken" in there.reason


def test_the_time_of_a_pause_is_none_of_its_step_and_a_new_one_has_its_own():
    there, _ = command(rollout(), Event.PAUSE, "ann", 130.0)
    assert (there.state, there.share, there.reason) == (State.PAUSED, 1, "ann said pause")
    there = Rollout.of(json.loads(json.dumps(there.plain)))
    there, _ = command(there, Event.RESUME, "ann", 500.0)
    seen = Seen(new=GOOD, old=GOOD)
    assert decide(there, seen, 529.0) == (there, ()), "30 s of its 60 were over"
    there, (record,) = decide(there, seen, 530.0)
    assert (there.step, there.entered, record.share) == (1, 530.0, 10)


def test_a_step_that_was_paused_again_and_again_has_its_whole_time():
    there = rollout()
    for at in (110.0, 210.0, 310.0):
        there, _ = command(there, Event.PAUSE, "ann", at)
        there, _ = command(there, Event.RESUME, "ann", at + 90.0)
    assert (there.entered, there.paused) == (370.0, None)


def test_its_own_rules_count_beside_the_guards_or_alone():
    slow = Arm(30, latency=Sketch.of(*[0.9] * 30))
    own = replace(TERMS, abort_if=("p99_latency > 500ms",), margin=None)
    assert decide(rollout(), Seen(new=slow, old=slow), 101.0)[1] == ()
    after, (record,) = decide(rollout(terms=own), Seen(new=slow, old=slow), 101.0)
    assert after.state is State.ROLLING_BACK
    assert "p99_latency > 0.5" in record.reason
    assert (record.answers, record.beside) == (30, 30)
    assert decide(rollout(terms=own), Seen(new=BAD, old=GOOD), 101.0)[1] == ()


@pytest.mark.parametrize("metric", ["feedback.thumbs", "shadow.agreement"])
def test_a_rule_that_nobody_says_anything_of_guards_nothing_and_holds_the_step(metric):
    terms = replace(TERMS, abort_if=(f"{metric} < 0.5",))
    after, (record,) = decide(rollout(terms=terms), Seen(new=GOOD, old=GOOD), 160.0)
    assert (after.state, record.event) == (State.HOLDING, Event.SHORT)
    assert record.reason == f"{metric} < 0.5: no answers yet"
    said = replace(GOOD, scores={metric: Score(400, 400.0)})
    assert decide(after, Seen(new=said, old=GOOD), 170.0)[1][0].event is Event.GOOD


def test_rules_that_take_somebody_beside_are_judged_until_all_users_have_it():
    rules = (
        "shadow.agreement < 0.5",
        "feedback.thumbs < baseline - 0.1",
        "feedback.kept < 0.5",
        "error_rate > baseline",
    )
    terms = replace(TERMS, abort_if=rules, mirror=10.0)
    thumbs, kept = {"feedback.thumbs": Score(400, 300.0)}, {"feedback.kept": Score(400, 400.0)}
    told = replace(GOOD, scores=thumbs | kept | {"shadow.agreement": Score(400, 400.0)})
    beside = replace(GOOD, scores=thumbs)
    there, _ = decide(rollout(State.PENDING, terms=terms), Seen(warm=True), 100.0)
    for now in (160.0, 220.0):
        held, (record,) = decide(there, Seen(new=GOOD, old=GOOD), now)
        assert (held.state, record.reason.count("no answers yet")) == (State.HOLDING, 3)
        there, _ = decide(there, Seen(new=told, old=beside), now)
    assert (there.state, there.share) == (State.RAMPING, 100)
    held, (record,) = decide(there, Seen(new=GOOD), 280.0)
    assert (held.state, record.reason) == (State.HOLDING, "feedback.kept < 0.5: no answers yet")
    there, (record,) = decide(there, Seen(new=replace(GOOD, scores=thumbs | kept)), 280.0)
    assert (there.state, record.event) == (State.PROMOTING, Event.GOOD)
    there, _ = decide(there, Seen(told=True), 281.0)
    assert there.state is State.PROMOTED


def test_whatever_happens_in_whatever_order_it_stays_within_the_table():
    for seed in range(120):
        dice = random.Random(seed)
        there, now, bad = rollout(State.PENDING, entered=0.0), 0.0, dice.random() < 0.5
        for _ in range(60):
            now += dice.choice([0.5, 30.0, 70.0])
            before = there
            if dice.random() < 0.15:
                event = dice.choice(COMMANDS)
                if (there.state, event) in MOVES:
                    there, _ = command(there, event, "ann", now)
            else:
                new = BAD if bad and dice.random() < 0.5 else GOOD
                seen = Seen(dice.random() < 0.5, dice.random() < 0.5, dice.choice([0.0, 0.0, 0.0, 20.0]), new, GOOD)
                there, _ = decide(there, seen, now)
            if dice.random() < 0.3:  # whoever decides was restarted
                there = Rollout.of(json.loads(json.dumps(there.plain)))
            if before.over:
                assert there == before
            if there.state in AT_A_STEP:
                assert there.share in TERMS.steps
                assert before.state is State.PENDING or there.step - before.step in (0, 1)
            if there.state is State.ROLLING_BACK:
                assert there.share == 0
