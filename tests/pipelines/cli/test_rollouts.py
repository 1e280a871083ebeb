"""What the commands send and show, with a gateway that is a list of what it was asked."""

import json

import pytest

from pipelines.cli import rollouts
from pipelines.routing.rollout import Terms
from pipelines.routing.settings import STEPS
from tests.pipelines.cli.conftest import Far, strata

TERMS = {
    "model": "chat", "old": "v6", "new": "v7", "steps": [1, 100], "every_seconds": 600,
    "abort_if": ["error_rate > 0.01"],
    "margin": 0.2, "answers": 50, "alpha": 0.01, "evals": {"sums": {"digest": "x", "questions": 40}},
}  # fmt: skip
TOLD = {
    "name": "chat-v7", "state": "ramping", "share": 1, "answers": {"new": 3, "old": 300}, "reason": "v7 is warm",
    "terms": TERMS,
    "findings": ["p50_ttft > 1.2 baseline + 0.005: 0.1 (0 to 0.4) against the limit 0.2 (0.1 to 0.3), kept"],
    "audit": [
        {"at": 0.0, "event": "start", "by": "ann"},
        {"at": 61.0, "event": "warm", "by": "", "was": "pending", "now": "ramping", "share": 1, "answers": 0,
         "beside": 0, "reason": "v7 is warm"},
    ],
}  # fmt: skip


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch, home) -> Far:
    made = Far("/v1/rollouts", TOLD)
    monkeypatch.setattr(rollouts, "gateway", lambda file, url: made)
    return made


def test_a_rollout_is_sent_as_it_was_typed(far: Far, monkeypatch, capsys) -> None:
    words = ("--to", "v7", "--steps", "0.5%,5,100", "--every", "10m", "--abort-if", "p99_latency > 500ms", "--json")
    assert strata(monkeypatch, "rollout", "chat", *words) == 0
    ((method, path, body),) = far.asked
    assert (method, path) == ("POST", "/v1/rollouts")
    assert body == {
        "model": "chat", "to": "v7", "steps": [0.5, 5, 100], "every_seconds": 600, "abort_if": ["p99_latency > 500ms"],
        "margin": 0.2, "answers": 50, "dry_run": False,
    }  # fmt: skip
    assert json.loads(capsys.readouterr().out)["name"] == "chat-v7"


def test_the_first_step_is_half_a_percent_unless_another_is_given(far: Far, monkeypatch) -> None:
    assert strata(monkeypatch, "rollout", "chat", "--to", "v7") == 0
    assert tuple(far.asked[0][2]["steps"]) == Terms("chat", "v6", "v7").steps == STEPS
    assert STEPS[0] == 0.5


def test_its_steps_are_said_with_the_last_that_nobody_gave(far: Far, monkeypatch, capsys) -> None:
    assert strata(monkeypatch, "rollout", "chat", "--to", "v7", "--steps", "1") == 0
    assert "chat-v7: 1 %, 100 % of the users, one after the other" in capsys.readouterr().out


def test_what_it_would_do_is_said_in_words(far: Far, monkeypatch, capsys) -> None:
    assert (
        strata(
            monkeypatch,
            "rollout",
            "chat",
            "--to",
            "v7",
            "--from",
            "v6",
            "--margin",
            "off",
            "--mirror",
            "10%",
            "--dry-run",
        )
        == 0
    )
    assert far.asked[0][2]["mirror"] == 10
    assert (far.asked[0][2]["margin"], far.asked[0][2]["from"], far.asked[0][2]["dry_run"]) == (None, "v6", True)
    said = capsys.readouterr().out
    for words in ("v6 → v7", "1 %, 100 %", "error_rate > 0.01", "20 % slower", "at most 1 %", "nothing was begun"):
        assert words in said


def test_rules_on_what_a_gateway_may_know_are_sent(far: Far, monkeypatch) -> None:
    rules = ["eval.sums < baseline - 0.02", "shadow.agreement < 90%", "feedback.thumbs < baseline"]
    words = [word for rule in rules for word in ("--abort-if", rule)]
    assert strata(monkeypatch, "rollout", "chat", "--to", "v7", *words) == 0
    assert far.asked[0][2]["abort_if"] == rules


@pytest.mark.parametrize("verb", rollouts.VERBS)
def test_verbs(far: Far, monkeypatch, capsys, verb) -> None:
    assert strata(monkeypatch, "rollout", verb, "chat-v7/x") == 0
    assert far.asked == [("POST", "/v1/rollouts/chat-v7%2Fx", {"action": verb})]
    assert "chat-v7: ramping, 1 % of the users of v6" in capsys.readouterr().out


def test_all_and_one_are_shown(far: Far, monkeypatch, capsys) -> None:
    assert strata(monkeypatch, "rollouts") == 0
    assert "3 / 300" in capsys.readouterr().out
    assert strata(monkeypatch, "rollouts", "chat-v7") == 0
    said = capsys.readouterr().out
    assert "00:01:01" in said
    assert "p50_ttft" in said
    assert "pending → ramping" in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("chat",), "--to: nothing"),
        (("chat", "more", "--to", "v7"), "MODEL: chat more"),
        (("chat", "--to", "v7", "--every", "soon"), "--every: soon"),
        (("chat", "--to", "v7", "--every", "10"), "--every: 10 is not accepted; give a time such as 30s, 10m or 1h"),
        (("chat", "--to", "v7", "--steps", "1,half"), "--steps: half"),
        (("chat", "--to", "v7", "--margin", "much"), "--margin: much"),
        (("chat", "--to", "v7", "--margin", "-1"), "--margin: -1 is not accepted; give a share such as 20% or 0.2"),
        (("chat", "--to", "v7", "--margin", "20"), "--margin: 20 is not accepted; it is a share: say 20% or 0.2"),
        (("explode", "chat-v7"), "MODEL: explode chat-v7"),
        (("pause",), "MODEL: pause is not accepted; name the rollout, such as strata rollout pause chat-v7"),
        (("chat", "--to", "v7", "--abort-if", "latency is bad"), "--abort-if: latency is bad is not accepted; write"),
        (("chat", "--to", "v7", "--abort-if", "p98_latency > 1s"), "--abort-if: p98_latency > 1s is not accepted"),
        (("chat", "--to", "v7", "--steps", "5,1"), "--steps: [5.0, 1.0] is not accepted; each step is above"),
        (("chat", "--to", "v7", "--steps", "200"), "--steps: 200.0 is not accepted; it is a number from 0 to 100"),
        (
            ("chat", "--to", "v7", "--every", "0s"),
            "--every: 0.0 is not accepted; it is a number from 0.1 to 2592000 seconds",
        ),
        (
            ("chat", "--to", "v7", "--eval", "x=/nope"),
            "/nope: a file that cannot be read (No such file or directory) is not",
        ),
        (("chat", "--to", "v7", "--mirror", "0"), "--mirror: 0.0 is not accepted"),
    ],
)
def test_what_cannot_be_said_names_the_flag(far: Far, monkeypatch, capsys, words, says) -> None:
    assert strata(monkeypatch, "rollout", *words) == 1
    assert says in capsys.readouterr().err
    assert far.asked == []
