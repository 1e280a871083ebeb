"""What `strata routes` sends and shows, with a gateway that is a list of what it was asked."""

import json
from pathlib import Path

import pytest

from cluster import document
from pipelines.cli import routes
from tests.pipelines.cli.conftest import Far, strata

RULES = [{"when": {"tenants": ["staff"], "headers": {"x-beta": "yes"}}, "to": "v7"}]
TOLD = {
    "model": "chat", "versions": ["v6", "v7"], "weights": {"v6": 99.5, "v7": 0.5}, "rules": RULES,
    "shadow": None, "ramp": {"old": "v6", "new": "v7", "share": 5.0}, "audit": [],
    "settings": {"rules": RULES, "shadow": {"version": "v7", "share": 5.0}}, "trial": None,
    "waits": "", "spare": {"versions": ["v5"], "seconds": 90.0}, "follow": ["v4"],
}  # fmt: skip


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch, home) -> Far:
    made = Far("/v1/routes", TOLD)
    monkeypatch.setattr(routes, "gateway", lambda file, url: made)
    return made


def test_all_are_listed(far: Far, monkeypatch, capsys) -> None:
    assert strata(monkeypatch, "routes") == 0
    said = capsys.readouterr().out
    assert far.asked == [("GET", "/v1/routes", None)]
    assert "v6 99.5 %, v7 0.5 %" in said
    assert "v7 5 %" in said
    assert "chat: v5 without users, kept for 90 s more" in said
    assert "chat: its users get v4 as soon as it answers" in said
    assert strata(monkeypatch, "routes", "--json") == 0
    assert json.loads(capsys.readouterr().out)["data"][0]["model"] == "chat"


def test_what_is_shown_is_what_set_takes(far: Far, monkeypatch, capsys) -> None:
    assert strata(monkeypatch, "routes", "show", "team/chat") == 0
    said = capsys.readouterr().out
    assert said.startswith("# a rollout gives v7 5 % of the users of v6\n")
    Path("chat.yaml").write_text(said)
    assert strata(monkeypatch, "routes", "set", "team/chat", "chat.yaml") == 0
    assert "v6 99.5 %, v7 0.5 %, rules: 1;" in capsys.readouterr().out
    body = {"weights": {"v6": 99.5, "v7": 0.5}, "rules": RULES}
    assert far.asked == [("GET", "/v1/routes/team%2Fchat", None), ("PUT", "/v1/routes/team%2Fchat", body)]
    assert strata(monkeypatch, "routes", "show", "chat", "--json") == 0
    assert json.loads(capsys.readouterr().out)["audit"] == []


def test_a_file_that_is_none_is_said_with_its_line(far: Far, monkeypatch, capsys) -> None:
    Path("chat.yaml").write_text("weights: {v6: 100}\nweights: {v7: 100}\n")
    assert strata(monkeypatch, "routes", "set", "chat", "chat.yaml") == 1
    assert "chat.yaml:2: a second 'weights'" in capsys.readouterr().err
    assert strata(monkeypatch, "routes", "set", "chat", "none.yaml") == 1
    assert "no such file" in capsys.readouterr().err
    Path("empty.yaml").write_text("\n")
    assert strata(monkeypatch, "routes", "set", "chat", "empty.yaml") == 1
    assert "write into it what `strata routes show chat` says, changed" in capsys.readouterr().err
    assert far.asked == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("weights: {v6: 90, v7: 5}\n", "chat.yaml.weights: 90 + 5 = 95 is not accepted; shares are percent and add up"),
        ("weights: {v6: 190, v7: -90}\n", "chat.yaml.weights.v6: 190"),
        ("weights:\n  v6: much\n", 'weights.v6 (chat.yaml:2): "much" is not accepted; it is a number'),
        ("wieghts: {v6: 100}\n", "did you mean weights?"),
        ("weights: {v6: 100}\nshadow: {version: v6}\n", "it would mirror itself"),
    ],
)
def test_a_route_that_could_be_no_model_s_is_refused_before_anybody_is_asked(
    far: Far, monkeypatch, capsys, text, said
) -> None:
    Path("chat.yaml").write_text(text)
    assert strata(monkeypatch, "routes", "set", "chat", "chat.yaml") == 1
    assert said in capsys.readouterr().err
    assert far.asked == []
    Path("chat.yaml").write_text("rules: [{when: {users: [ann]}, to: v7}]\nshadow: {version: v8}\n")
    assert strata(monkeypatch, "routes", "set", "chat", "chat.yaml") == 0


def test_a_route_is_written_without_what_it_does_not_say() -> None:
    text = routes.written({"weights": {"v6": 100.0}, "rules": [], "shadow": {"version": "v7", "share": 5.0}})
    assert document.parse(text, "x").values == {"weights": {"v6": 100.0}, "shadow": {"version": "v7", "share": 5.0}}
