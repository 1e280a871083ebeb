"""Merge requests: every state with every event, who may approve what, and when a merge is ready."""

import json
import subprocess

import pytest
import torch

from actors.registry import requests
from actors.registry.desk import Desk
from actors.registry.merging import Strategy
from actors.registry.requests import MOVES, Evaluation, MergeRequest, Requirements, Review, State
from actors.registry.signing import Signer
from cluster.condition import parse
from cluster.errors import Conflict, InvalidRequest, ModelInvalid, NotFound
from tests.actors.registry.conftest import write_model

EVENTS = sorted({event for _, event in MOVES})
SCORE = parse("eval.exact_match >= baseline - 0.02", "registry.conditions")


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", EVENTS)
def test_every_state_with_every_event(state, event):
    there = MergeRequest("t", "tuned", "main", "ada", state=state)
    if (state, event) in MOVES:
        assert there.moved(event).state is MOVES[state, event]
    else:
        with pytest.raises(Conflict, match=state.value):
            there.moved(event)


def test_who_opened_it_does_not_approve_it():
    there = MergeRequest("t", "tuned", "main", "ada")
    with pytest.raises(InvalidRequest, match="somebody else"):
        there.reviewed(Review("ada", "1", True))
    assert there.reviewed(Review("ada", "1", False, "not yet")).reviews


def test_the_last_word_of_each_counts_for_the_version_it_was_said_of():
    there = MergeRequest("t", "tuned", "main", "ada")
    needs = Requirements(approvals=2)
    assert needs.missing(there, "aaa", "ttt") == ["2 more approvals of aaa (it has 0 of 2)"]
    there = there.reviewed(Review("bob", "aaa", True)).reviewed(Review("cyd", "aaa", False))
    assert needs.missing(there, "aaa", "ttt") == ["cyd is against it", "1 more approval of aaa (it has 1 of 2)"]
    there = there.reviewed(Review("cyd", "aaa", True))
    assert needs.missing(there, "aaa", "ttt") == []
    (moved_on,) = needs.missing(there, "bbb", "ttt")
    assert moved_on == "2 more approvals of bbb (it has 0 of 2, and 2 are of a version that the branch was at before)"


def test_figures_are_of_a_version_and_the_later_counts():
    there = MergeRequest("t", "tuned", "main", "ada")
    needs = Requirements(0, (SCORE,))
    (unknown,) = needs.missing(there, "aaa", "ttt")
    assert unknown == "no figure for eval.exact_match >= baseline - 0.02; evaluate both versions"
    there = there.evaluated(Evaluation("ttt", {"eval.exact_match": 0.9}))
    there = there.evaluated(Evaluation("aaa", {"eval.exact_match": 0.5}))
    (low,) = needs.missing(there, "aaa", "ttt")
    assert "does not hold: it is 0.5" in low
    there = there.evaluated(Evaluation("aaa", {"eval.exact_match": 0.89, "loss": 1.0}))
    assert needs.missing(there, "aaa", "ttt") == []
    assert requests.parse(there.text()) == there


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[]", b"null", json.dumps({"reviews": [{"x": 1}], "evaluations": []}).encode()]
)
def test_what_was_made_up_is_refused(text):
    with pytest.raises(ModelInvalid, match="merge request"):
        requests.parse(text)


@pytest.fixture
def desk(registry, tmp_path):
    torch.manual_seed(0)
    for version, branch in (("v1", "main"), ("v2", "tuned")):
        path = write_model(tmp_path / version, {"a": torch.randn(4)})
        registry.push("chat", path, author="ada", branch=branch)
    return Desk(registry, Requirements(1, (SCORE,)))


def test_from_opened_to_merged(desk, registry, tmp_path):
    assert desk.open("chat", "tuned", "Better answers", author="ada") == 1
    with pytest.raises(
        Conflict, match=r"!1 still needs 1 more approval of .* \(it has 0 of 1\); .*see to that, then merge"
    ):
        desk.merge("chat", 1, principal="ada")
    desk.review("chat", 1, principal="bob", approves=True, comment="fine")
    for of, score in (("target", 0.9), ("source", 0.95)):
        desk.evaluate("chat", 1, {"eval.exact_match": score}, principal="ci", of=of)
    assert desk.show("chat", 1)[1] == []
    made = desk.merge("chat", 1, principal="bob")
    assert registry.show("chat").entry.id == made.commit
    assert registry.show("chat").entry.message == "Merge !1: Better answers"
    (kept,) = desk.all("chat")
    assert (kept[0], kept[1].state, kept[1].merged_as) == (1, State.MERGED, made.commit)
    with pytest.raises(Conflict, match="merged"):
        desk.merge("chat", 1, principal="bob")
    repository = str(tmp_path / "registry" / "models" / "chat.git")
    line = ["git", "--git-dir", repository, "log", "--format=%an %s", "refs/requests/1"]
    said = subprocess.run(line, check=True, capture_output=True, text=True).stdout.splitlines()
    assert said == ["bob Merge", "ci Evaluate", "ci Evaluate", "bob Approve", "ada Open: Better answers"]
    assert registry.fsck() == []


def test_a_merge_whose_merger_died_before_it_was_written_is_the_one(desk, registry, tmp_path, monkeypatch):
    number = desk.open("chat", "tuned", "Better", author="ada")
    record = registry.record

    def dies(*_given):
        raise KeyboardInterrupt

    monkeypatch.setattr(registry, "record", dies)
    lenient = Desk(registry, Requirements(0))
    with pytest.raises(KeyboardInterrupt):
        lenient.merge("chat", number, principal="ada")
    monkeypatch.setattr(registry, "record", record)
    tip = registry.history("chat").resolve("main")
    with pytest.raises(Conflict, match="still needs"):
        Desk(registry, Requirements(1)).merge("chat", number, principal="ada")
    assert lenient.merge("chat", number, principal="ada").commit == tip
    assert lenient.show("chat", number)[0].merged_as == tip
    assert registry.history("chat").resolve("main") == tip


def test_an_approval_ends_when_the_branch_moves_on(desk, registry, tmp_path):
    desk.open("chat", "tuned", "Better answers", author="ada")
    desk.review("chat", 1, principal="bob", approves=True)
    path = write_model(tmp_path / "v3", {"a": torch.randn(4)})
    registry.push("chat", path, author="ada", branch="tuned")
    assert "of a version that the branch was at before" in desk.show("chat", 1)[1][0]


def test_closed_and_taken_up_again(desk):
    desk.open("chat", "tuned", "Better answers", author="ada", strategy=Strategy("linear", 0.3))
    desk.close("chat", 1, principal="ada")
    with pytest.raises(Conflict, match="closed"):
        desk.review("chat", 1, principal="bob", approves=True)
    assert desk.reopen("chat", 1, principal="ada").state is State.OPEN


def test_what_cannot_be_asked_for(desk):
    for words, error in (
        (("chat", "main", "t"), InvalidRequest), (("chat", "tuned", " "), InvalidRequest),
        (("chat", "other", "t"), NotFound), (("else", "tuned", "t"), NotFound),
    ):  # fmt: skip
        with pytest.raises(error):
            desk.open(*words, author="ada")
    with pytest.raises(NotFound, match="no merge request !7 of chat"):
        desk.show("chat", 7)
    desk.open("chat", "tuned", "t", author="ada")
    for value in (float("nan"), "0.9", True, None):
        with pytest.raises(InvalidRequest, match="metrics"):
            desk.evaluate("chat", 1, {"eval.exact_match": value}, principal="ci")
    for name in ("ev al", "", "Eval", ".x", "eval."):
        with pytest.raises(InvalidRequest, match="name it as conditions do"):
            desk.evaluate("chat", 1, {name: 0.5}, principal="ci")
    with pytest.raises(InvalidRequest, match="of"):
        desk.evaluate("chat", 1, {}, principal="ci", of="elsewhere")


def test_an_approval_that_nobody_trusted_has_signed_is_found(desk, registry, tmp_path):
    desk.open("chat", "tuned", "t", author="ada")
    history, there = registry.history("chat"), desk.show("chat", 1)[0]
    forged = {"request.json": there.reviewed(Review("bob", "1" * 40, True)).text()}
    at = history.refs("refs/requests/")["1"]
    commit = history.commit(forged, (at,), "bob", 0, "Approve", Signer(tmp_path).sign)
    assert registry.fsck() == []
    history.move("refs/requests/1", commit, at)
    (problem,) = registry.fsck()
    assert commit[:12] in str(problem)


def test_a_merge_into_another_branch_is_not_the_one_that_was_asked_for(desk, registry, tmp_path):
    for value, branch in ((7, "other"), (8, "third")):
        path = write_model(tmp_path / branch, {"w": torch.full((4,), float(value))})
        registry.push("chat", path, author="ada", branch=branch)
    number = desk.open("chat", "other", "Better", author="ada")
    registry.merge("chat", "other", author="ada", branch="third", strategy=Strategy("theirs"))
    registry.merge("chat", "third", author="ada", strategy=Strategy("theirs"))
    _, missing = desk.show("chat", number)
    assert any("is in main already" in line for line in missing)
    desk.review("chat", number, principal="bob", approves=True)
    desk.evaluate("chat", number, {"eval.exact_match": 0.9}, principal="bob")
    desk.evaluate("chat", number, {"eval.exact_match": 0.9}, principal="bob", of="target")
    with pytest.raises(Conflict, match="is in main already"):
        desk.merge("chat", number, principal="bob")
