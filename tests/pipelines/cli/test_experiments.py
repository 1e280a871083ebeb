"""What the commands send and show, with a gateway that is a list of what it was asked."""

from pathlib import Path

import pytest

from pipelines.cli import experiments
from tests.pipelines.cli.conftest import Far, strata

ARMS = [
    {
        "version": "v6",
        "users": 40,
        "mean": {"looks": 0.5, "low": 0.4, "high": 0.6},
        "differs": None,
        "said": "compared",
    },
    {"version": "v7", "users": 0, "mean": None, "differs": None, "said": "no outcomes yet"},
]
TOLD = {"name": "tone", "model": "chat", "metric": "thumbs", "over": False, "findings": ARMS}


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch, home) -> Far:
    made = Far("/v1/experiments", TOLD)
    monkeypatch.setattr(experiments, "gateway", lambda file, url: made)
    return made


def test_an_experiment_is_sent_as_it_was_typed(far: Far, monkeypatch, capsys) -> None:
    words = ("--arms", "v6=50,v7=50%", "--rate", "60%", "--effect", "5%", "--users", "900", "--name", "tone")
    assert strata(monkeypatch, "experiment", "chat", *words) == 0
    assert far.asked == [
        ("POST", "/v1/experiments", {
            "name": "tone", "model": "chat", "arms": {"v6": 50, "v7": 50}, "metric": "thumbs", "rate": 0.6,
            "effect": 0.05, "users": 900, "force": False,
        })
    ]  # fmt: skip
    assert "0.500 (0.400 to 0.600)" in capsys.readouterr().out


def test_a_share_without_a_percent_sign_is_what_http_takes_it_for(far: Far, monkeypatch) -> None:
    words = ("--arms", "v6=50,v7=50", "--rate", "0.6", "--effect", "0.05")
    assert strata(monkeypatch, "experiment", "chat", *words) == 0
    assert (far.asked[0][2]["rate"], far.asked[0][2]["effect"]) == (0.6, 0.05)


def test_it_ends_and_is_shown_and_drawn(far: Far, monkeypatch, capsys) -> None:
    assert strata(monkeypatch, "experiment", "end", "tone", "--keep", "v7") == 0
    assert strata(monkeypatch, "experiments", "tone", "--picture", "tone.svg") == 0
    assert strata(monkeypatch, "experiments") == 0
    assert [each[:2] for each in far.asked] == [
        ("POST", "/v1/experiments/tone"), ("GET", "/v1/experiments/tone"), ("GET", "/v1/experiments")
    ]  # fmt: skip
    assert far.asked[0][2] == {"action": "end", "keep": "v7"}
    assert Path("tone.svg").read_text().startswith("<svg")
    assert "no outcomes yet" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("experiment", "chat"), "--arms: nothing"),
        (("experiment", "chat", "--arms", "v6"), "--arms"),
        (("experiment", "chat", "--arms", "v6=50,v6=50"), "v6 is named twice"),
        (("experiment", "chat", "more"), "MODEL: chat more"),
        (
            ("experiment", "chat", "--arms", "v6=50,v7=50", "--rate", "60"),
            "--rate: 60 is not accepted; it is a share: say 60% or 0.6",
        ),
        (
            ("experiment", "chat", "--arms", "v6=50,v7=50", "--effect", "1"),
            "--effect: 1 is not accepted; it is a share: say 1% or 0.01",
        ),
        (("experiment", "end"), "MODEL: end is not accepted; name the experiment"),
        (("experiments", "--picture", "x.svg"), "--picture: x.svg"),
    ],
)
def test_what_cannot_be_said_names_the_flag(far: Far, monkeypatch, capsys, words, says) -> None:
    assert strata(monkeypatch, *words) == 1
    assert says in capsys.readouterr().err
