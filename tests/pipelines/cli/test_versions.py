"""Versions on the command line, from a folder to a folder."""

import json
import os
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from actors.registry.outbox import Outbox
from cluster.security.keys import KeyRing
from cluster.settings import ClusterSettings
from pipelines.cli import show
from pipelines.settings import load
from pipelines.versions import registry_of
from pipelines.webhooks import hook_id
from tests.actors.registry.conftest import write_model
from tests.pipelines.cli.conftest import strata


def test_a_folder_goes_in_and_comes_out(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(home / "model", {"a": torch.ones(8)}, size=1)
    assert strata(monkeypatch, "models", "push", "model", "--name", "chat", "--meta", "license=mit", "-m", "First") == 0
    assert "chat@v1" in capsys.readouterr().out
    assert strata(monkeypatch, "models", "push", "model", "--name", "chat") == 0
    assert "already" in capsys.readouterr().out
    write_model(home / "model", {"a": torch.zeros(8)}, size=2)
    assert strata(monkeypatch, "models", "push", "model", "--name", "chat", "--json") == 0
    assert json.loads(capsys.readouterr().out)["version"] == "v2"

    assert strata(monkeypatch, "models", "alias", "chat@v2", "prod") == 0
    capsys.readouterr()
    assert strata(monkeypatch, "models", "log", "chat@prod", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["names"] for row in rows] == [["v2", "main", "@prod"], ["v1"]]
    assert strata(monkeypatch, "models", "show", "chat@v1", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["metadata"], shown["message"], shown["tensors"]) == ({"license": "mit"}, "First", 1)
    assert strata(monkeypatch, "models", "diff", "chat@v1", "v2") == 0
    said = capsys.readouterr().out
    assert '+  "size": 2' in said
    assert "~ model.safetensors: 96 B, as large as before" in said
    assert "1 tensor changed" in said
    assert '~ license: "mit" → none' in said
    assert "█" in said
    assert "100 %" in said

    assert strata(monkeypatch, "models", "checkout", "chat@v1", "out") == 0
    assert json.loads((home / "out" / "config.json").read_text())["size"] == 1
    for words in (("show", "chat@v1"), ("log", "chat"), ("fsck",), ("gc",), ("branch", "chat@v1", "old"),
                  ("remove", "chat@old"), ("tag", "chat@v1", "first")):  # fmt: skip
        assert strata(monkeypatch, "models", *words) == 0, words


def test_values_that_are_no_numbers_are_said(home: Path, monkeypatch, capsys) -> None:
    for a in ([0.0, 1.0], [float("nan"), 1.0], [float("inf"), float("nan")]):
        write_model(home / "model", {"a": torch.tensor(a), "b": torch.full((2,), a[1])})
        assert strata(monkeypatch, "models", "push", "model", "--name", "chat") == 0
    warned = capsys.readouterr().err
    assert "warning a is not finite: 1 of 2 values" in warned
    assert "warning b is not finite: 2 of 2 values" in warned
    for before in ("chat@v1", "chat@v2"):
        assert strata(monkeypatch, "models", "diff", before, "v3") == 0
        assert "not finite: 2 of 2 values" in capsys.readouterr().out
    assert strata(monkeypatch, "models", "diff", "chat@v1", "v3", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["norms"], found["not_finite"]["model.safetensors"]["a"]) == ({"model.safetensors": {}}, [2, 2])


def test_what_is_left_out_is_said(home: Path, monkeypatch, capsys) -> None:
    write_model(home / "model", {"a": torch.ones(2)})
    (home / "model" / ".git").mkdir()
    (home / "model" / "adapter" / "__pycache__").mkdir(parents=True)
    assert strata(monkeypatch, "models", "push", "model", "--name", "chat") == 0
    assert "left out: .git, adapter/__pycache__\n" in capsys.readouterr().err


def test_metrics_stand_as_they_were_and_are(home: Path, monkeypatch, capsys) -> None:
    write_model(home / "model", {"a": torch.ones(2)})
    for metrics in ({"loss": 2, "same": 1, "gone": 3}, {"loss": 1.5, "same": 1, "new": 4}):
        (home / "facts.json").write_text(json.dumps({"metrics": metrics}))
        assert strata(monkeypatch, "models", "push", "model", "--name", "chat", "--facts", "facts.json") == 0
    capsys.readouterr()
    assert strata(monkeypatch, "models", "diff", "chat@v1", "v2") == 0
    assert capsys.readouterr().out.splitlines() == [
        "~ metrics.gone: 3 → none", "~ metrics.loss: 2 → 1.5", "~ metrics.new: none → 4",
    ]  # fmt: skip


@pytest.mark.parametrize("width", [40, 80])
def test_what_changed_where_fits_the_terminal(home: Path, monkeypatch, capsys, width) -> None:
    monkeypatch.setattr(show.out, "width", width)
    for value in (1.0, 2.0):
        write_model(home / "model", {f"t{number:03}": torch.full((2,), value) for number in range(90)})
        assert strata(monkeypatch, "models", "push", "model", "--name", "chat") == 0
    capsys.readouterr()
    assert strata(monkeypatch, "models", "diff", "chat@v1", "v2") == 0
    (strip,) = [line for line in capsys.readouterr().out.splitlines() if "█" in line]
    assert len(strip) == min(width, 72)


def test_a_branch_that_a_push_makes_is_said(home: Path, monkeypatch, capsys) -> None:
    write_model(home / "model", {"a": torch.ones(2)})
    for model, branch, said in (
        ("chat", "main", "the tip of main, "), ("chat", "tuned", "new branch tuned, from main v1\n"),
        ("other", "tuned", "new branch tuned\n"),
    ):  # fmt: skip
        assert strata(monkeypatch, "models", "push", "model", "--name", model, "--branch", branch) == 0
        found = capsys.readouterr().out
        assert said in found
        assert f"the tip of {branch}, " in found
        assert ("new branch" in found) is (branch != "main")
    (home / "model" / "README.md").write_text("x")
    assert strata(monkeypatch, "models", "push", "model", "--name", "chat", "--branch", "tuned") == 0
    assert "new branch" not in capsys.readouterr().out


def test_a_message_is_shown_whole(home: Path, monkeypatch, capsys) -> None:
    write_model(home / "model", {"a": torch.ones(2)})
    assert strata(monkeypatch, "models", "push", "model", "--name", "chat", "-m", "First\n\nand [/why] it is") == 0
    capsys.readouterr()
    assert strata(monkeypatch, "models", "show", "chat@v1") == 0
    assert "and [/why] it is" in capsys.readouterr().out


@pytest.fixture
def long(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A version with long metadata, a long message and many aliases."""
    write_model(home / "model", {"a": torch.ones(8)}, size=1)
    (home / "facts.json").write_text(json.dumps({"merge": {"ours": "a" * 40, "theirs": "b" * 40, "weight": 0.25}}))
    why = "Because what it said of the weather was wrong on most days of the week and on all of them in spring"
    assert strata(monkeypatch, "models", "push", "model", "--name", "chat", "--facts", "facts.json", "-m", why) == 0
    for alias in ("prod", "staging", "canary", "spring", "europe"):
        assert strata(monkeypatch, "models", "alias", "chat@v1", alias) == 0
    capsys.readouterr()


@pytest.mark.usefixtures("long")
@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_version_is_shown_whole_in_a_narrow_terminal(monkeypatch, capsys, width) -> None:
    monkeypatch.setattr(show.out, "width", width)
    assert strata(monkeypatch, "models", "show", "chat@v1") == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= width
    assert all(f"\n{key} " in said for key in ("model", "version", "parents", "merge"))
    joined = "".join(said.split())
    for words in ('"theirs":"' + "b" * 40, '"weight":0.25', "wrongonmostdaysoftheweekandonallofthemin"):
        assert words in joined


@pytest.mark.usefixtures("long")
@pytest.mark.parametrize(("width", "there"), [(80, False), (160, True)])
def test_a_log_leaves_columns_out_where_there_is_no_room(monkeypatch, capsys, width, there) -> None:
    monkeypatch.setattr(show.out, "width", width)
    assert strata(monkeypatch, "models", "log", "chat") == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= width
    assert said.splitlines()[1].startswith("v1 ")
    assert all(name in said for name in ("@prod", "@staging", "@canary", "@spring", "@europe", "weather", "week"))
    assert ("commit" in said.splitlines()[0]) is there
    assert ("no room for commit" in said) is not there
    assert len(said.splitlines()) < 10


@pytest.mark.usefixtures("home")
def test_a_tokenizer_that_changed_is_seen(home: Path, monkeypatch, capsys) -> None:
    write_model(home / "model", {"a": torch.ones(8)})
    for tokens in ({"a": 0}, {"a": 1, "b": 0}):
        (home / "model" / "tokenizer.json").write_text(json.dumps({"model": {"merges": [], "vocab": tokens}}))
        (home / "model" / "tokenizer.model").write_bytes(b"\xff" * 2_000_000 * len(tokens))
        assert strata(monkeypatch, "models", "push", "model", "--name", "chat") == 0
    capsys.readouterr()
    assert strata(monkeypatch, "models", "diff", "chat@v1", "v2") == 0
    said = capsys.readouterr().out
    assert '~ tokenizer.json: 44 B → 52 B; tokens: 1 added ("b"), 0 removed, 1 changed' in said
    assert "@@" not in said
    assert "~ tokenizer.model: 2.0 MB → 4.0 MB" in said


@pytest.mark.usefixtures("home")
def test_errors_name_the_thing_and_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty").mkdir()
    for words, said in (
        (("push", "empty", "--name", "chat"), "no config.json"),
        (("push", "nowhere", "--name", "chat"), "is no folder"),
        (("push", "empty", "--name", "Chat/../x"), "small letters"),
        (("push", "empty", "--name", "chat", "--meta", "x"), "key=value"),
        (("push", "empty", "--name", "chat", "-m", "a\x1b[2Jb"), r"--message: a\x1b[2Jb is not accepted; take control"),
        (("push", "empty", "--name", "chat", "-m", "a" * 10_001), "keep it below 10000 letters"),
        (("merge", "chat@v1", "--into", "chat", "-m", "\x07"), "--message"),
        (
            ("merge", "chat@exp", "--into", "tuned"),
            "--into: tuned is not accepted; name a branch of chat, such as chat@tuned",
        ),
        (("merge", "chat@exp", "--into", "talk@tuned"), "SOURCE: chat@exp is not accepted; name a version of talk"),
        (("stage", "chat@v1", "candidate", "-m", "\x07"), "--message"),
        (("merge-request", "open", "chat", "a", "-m", "\x9b2J"), "title"),
        (("push", "empty", "--name", "chat", "--meta", "a=1", "--meta", "a=2"), "a is there already; give it once"),
        (("remove", "chat"), "name what is to go, such as chat@prod"),
        (("show", "chat"), "no model chat"),
        (("show", "chat@"), "after the @"),
        (("diff", "chat@v1", "other@v2"), "a version of chat"),
        (("alias", "chat@v1", "prod"), "no model chat"),
    ):
        assert strata(monkeypatch, "models", *words) == 1, words
        captured = capsys.readouterr()
        assert said in captured.err, (words, captured.err)
        assert "Traceback" not in captured.err


@pytest.mark.usefixtures("home")
def test_changed_content_ends_with_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_model(tmp_path / "model", {"a": torch.ones(8)})
    assert strata(monkeypatch, "models", "push", "model", "--name", "chat") == 0
    for piece in (tmp_path / "state" / "registry" / "content").glob("??/*"):
        piece.write_bytes(b"x")
    capsys.readouterr()
    assert strata(monkeypatch, "models", "fsck") == 1
    said = capsys.readouterr().out
    assert said.startswith("chat v1 model.safetensors: ")
    assert "was changed; run `strata models fsck --repair`, then push its version again" in said
    assert said.endswith(f"{said.count('was changed')} faults\n")
    assert strata(monkeypatch, "models", "fsck", "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert told["faults"][0]["places"] == [{"model": "chat", "at": "v1", "file": "model.safetensors"}]
    assert strata(monkeypatch, "models", "fsck", "--repair") == 1
    assert capsys.readouterr().out.count("removed, as it was changed: the piece ") == len(told["faults"])
    assert strata(monkeypatch, "models", "push", "model", "--name", "chat") == 0
    assert "chat@v1 is that folder already; " in (said := capsys.readouterr().out)
    assert "of it, which had been lost, is there again" in said
    assert strata(monkeypatch, "models", "push", "model", "--name", "chat") == 0
    assert "chat@v1 is that folder already; nothing is new" in capsys.readouterr().out
    assert strata(monkeypatch, "models", "fsck") == 0


@pytest.mark.usefixtures("home")
def test_a_merge_request_from_opened_to_merged(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def run(*words: str) -> str:
        assert strata(monkeypatch, "models", *words) == 0, capsys.readouterr()
        return capsys.readouterr().out

    (tmp_path / "strata.yaml").write_text("registry:\n  conditions: ['eval.score >= baseline']\n")
    for value, branch in ((1.0, "main"), (2.0, "tuned")):
        write_model(tmp_path / "model", {"a": torch.full((8,), value)})
        run("push", "model", "--name", "chat", "--branch", branch)
    request = "merge-request"
    said = run(request, "open", "chat", "tuned", "-m", "Better")
    assert "!1 asks for tuned into main" in said
    assert "needs 1 more approval of " in said
    assert "needs no figure for eval.score" in said
    assert strata(monkeypatch, "models", request, "review", "chat", "1", "--approve") == 1
    assert "somebody else" in capsys.readouterr().err

    ring = KeyRing(ClusterSettings(state_dir=tmp_path / "state").keys_file)
    monkeypatch.setenv("STRATA_API_KEY", ring.issue("bob", "acme", "developer", 0))
    assert "needs no figure" in run(request, "review", "chat", "1", "--approve", "-m", "fine")
    run(request, "evaluate", "chat", "1", "eval.score=0.5", "--of", "target")
    assert "does not hold" in run(request, "evaluate", "chat", "1", "eval.score=0.4")
    assert strata(monkeypatch, "models", request, "merge", "chat", "1") == 1
    assert "eval.score" in capsys.readouterr().err
    assert "can be merged" in run(request, "evaluate", "chat", "1", "eval.score=0.6")
    assert "bob" in run(request, "show", "chat", "1")
    assert "chat@v3" in run(request, "merge", "chat", "1")
    (row,) = json.loads(run(request, "list", "chat", "--json"))
    assert (row["number"], row["state"], row["reviews"][0]["principal"]) == (1, "merged", "bob")
    assert "merged" in run(request, "list", "chat")
    assert json.loads(run("log", "chat", "--json"))[0]["author"] == "bob"


@pytest.mark.usefixtures("home")
def test_a_merge_is_of_what_each_changed_and_asks_about_what_both_did(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def run(*words: str, status: int = 0) -> str:
        assert strata(monkeypatch, "models", *words) == status, capsys.readouterr()
        captured = capsys.readouterr()
        return captured.err if status else captured.out

    for branch, a, b, more in (("main", 0.0, 0.0, "x"), ("tuned", 0.0, 1.0, "tuned"), ("main", 1.0, 0.0, "main")):
        write_model(tmp_path / "model", {"a": torch.full((8,), a), "b": torch.full((8,), b)})
        (tmp_path / "model" / "README.md").write_text("x" if branch == "tuned" else more)
        run("push", "model", "--name", "chat", "--branch", branch)
    assert "chat@v4" in run("merge", "chat@tuned", "--into", "chat")
    run("checkout", "chat@v4", "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert (float(found["a"][0]), float(found["b"][0])) == (1.0, 1.0)
    assert (tmp_path / "out" / "README.md").read_text() == "main"

    (tmp_path / "model" / "README.md").write_text("tuned")
    run("push", "model", "--name", "chat", "--branch", "tuned")
    (tmp_path / "model" / "README.md").write_text("main again")
    run("push", "model", "--name", "chat")
    said = run("merge", "tuned", "--into", "chat", status=1)
    assert "tuned cannot go into main without a decision on README.md, which both changed" in said
    request = "merge-request"
    said = run(request, "open", "chat", "tuned", "-m", "Better")
    assert "needs a decision on README.md, which both changed" in said
    assert "needs a decision on README.md, which both changed" in run(request, "show", "chat", "1")
    assert "a decision" in json.loads(run(request, "show", "chat", "1", "--json"))["missing"][-1]
    assert "a decision" not in run(request, "open", "chat", "tuned", "-m", "Better", "--strategy", "theirs")
    made = json.loads(run("merge", "tuned", "--into", "chat", "--strategy", "theirs", "--json"))
    run("checkout", f"chat@{made['version']}", "settled")
    assert (tmp_path / "settled" / "README.md").read_text() == "tuned"


@pytest.mark.usefixtures("home")
def test_a_version_is_promoted_and_taken_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def run(*words: str) -> str:
        assert strata(monkeypatch, "models", *words) == 0, capsys.readouterr()
        return capsys.readouterr().out

    for value in (1.0, 2.0):
        write_model(tmp_path / "model", {"a": torch.full((8,), value)})
        run("push", "model", "--name", "chat")
    run("alias", "chat@v1", "prod")
    run("alias", "chat@v2", "prod", "--from", "v1")
    assert "was v2 and is v1" in run("rollback", "chat@prod")
    assert [(row["back"], row["message"]) for row in json.loads(run("history", "chat@prod", "--json"))][1:] == [
        (False, "Point prod at v2"), (False, "Point prod at v1"),
    ]  # fmt: skip
    assert "back" in run("history", "chat@prod")
    assert json.loads(run("rollback", "chat@prod", "--to", "v2", "--json"))["alias"] == "prod"
    assert "chat@v2 was draft and is candidate" in run("stage", "chat@prod", "candidate")
    assert [row["stage"] for row in json.loads(run("log", "chat", "--json"))] == ["candidate", "draft"]
    assert json.loads(run("show", "chat@v2", "--json"))["stage"] == "candidate"
    assert "candidate" in run("show", "chat@v2")
    for words, said in (
        (("stage", "chat@v1", "live"), "chat@v1 is draft; from there it goes to candidate or retired, not to live"),
        (("stage", "chat@v1", "prod"), "take one of draft"),
        (("stage", "chat@v2", "canary", "--from", "draft"), "is candidate and not draft"),
        (("rollback", "chat"), "name the alias, such as chat@prod"),
        (("rollback", "chat@nope"), "no alias chat@nope; there is prod"),
    ):
        assert strata(monkeypatch, "models", *words) == 1, words
        assert said in capsys.readouterr().err


@pytest.mark.usefixtures("home")
def test_versions_are_found_by_what_is_known_of_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def run(*words: str) -> str:
        assert strata(monkeypatch, "models", *words) == 0, capsys.readouterr()
        return capsys.readouterr().out

    facts = tmp_path / "facts.yaml"
    facts.write_text("license: mit\nmetrics: {exact_match: 93e-2}\ndata: [a, b]\n")
    write_model(tmp_path / "model", {"a": torch.ones(8)})
    run("push", "model", "--name", "chat", "--facts", "facts.yaml", "--meta", "seed=7")
    (row,) = json.loads(run("search", "metrics.exact_match > 0.9 and seed = 7 and data = b", "--json"))
    assert (row["model"], row["version"], row["license"], row["stage"]) == ("chat", "v1", "mit", "draft")
    assert "chat@v1" in run("search", "license = mit")
    assert run("search", "license = gpl", "--json").strip() == "[]"
    assert "1 versions" in run("reindex")
    for words, said in (
        (("search", "license >"), "query: license > (at its end)"),
        (("push", "model", "--name", "chat", "--facts", "nowhere.yaml"), "--facts nowhere.yaml: No such file"),
        (("push", "model", "--name", "chat", "--meta", "stage=live"), "is what the registry itself says"),
    ):
        assert strata(monkeypatch, "models", *words) == 1, words
        assert said in capsys.readouterr().err
    for file in (tmp_path / "state" / "registry").glob("metadata.db*"):
        file.unlink()
    (tmp_path / "state" / "registry" / "metadata.db").mkdir()  # nobody can open that
    write_model(tmp_path / "model", {"a": torch.zeros(8)})
    assert strata(monkeypatch, "models", "push", "model", "--name", "chat") == 0
    assert "the catalogue follows later" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &x [*x]\n", "--facts facts.yaml: a: a list that holds itself is not accepted; write out"),
        ("a: &x {b: *x}\n", "--facts facts.yaml: a.b: a mapping that holds itself"),
        ("1: x\n", "--facts facts.yaml: the key 1, a number, is not accepted; write '1', in quotes"),
        ("'': x\n", "--facts facts.yaml: an empty key"),
        ("a: 1\nb: [1\n", "--facts facts.yaml, line 3, column 1: "),
        ("a: b: c\n", "--facts facts.yaml, line 1, column 5: mapping values"),
        ("[" * 5000, "--facts facts.yaml: deep nesting"),
        ("a: !!python/name:x y\n", "line 1, column 4"),
        ("- a\n", "what holds no keys"),
        ("? [a]\n: b\n", "--facts facts.yaml"),
        ("metrics: {exact_match: high}\n", '--facts facts.yaml: metrics.exact_match: "high" is not accepted'),
        ("stage: live\n", "--facts facts.yaml: stage is not accepted; is what the registry itself"),
    ],
)  # fmt: skip
def test_facts_that_are_none_name_the_file_the_place_and_what_to_do(
    home: Path, monkeypatch, capsys, text, said
) -> None:
    write_model(home / "model", {"a": torch.ones(8)})
    (home / "facts.yaml").write_text(text)
    assert strata(monkeypatch, "models", "push", "model", "--name", "chat", "--facts", "facts.yaml") == 1
    wrong = capsys.readouterr().err
    assert said in wrong
    assert "not a fault that Strata knows" not in wrong


@pytest.mark.usefixtures("home")
def test_an_argument_that_is_no_metric_says_how_one_is_written(monkeypatch, capsys) -> None:
    for pairs, said in (
        (("ev al=3",), "name it as conditions do"),
        (("eval.x",), "METRIC: eval.x is not accepted; write it as name=number"),
        (("eval.x=1", "eval.x=2"), "METRIC: eval.x=2 is not accepted; eval.x is there already; give it once"),
        (("eval.x=high",), 'metrics.eval.x: "high" is not accepted; give a finite number'),
        (("eval.x=" + "[" * 5000,), "give a finite number"),
    ):
        assert strata(monkeypatch, "models", "merge-request", "evaluate", "chat", "1", *pairs) == 1
        wrong = capsys.readouterr().err
        assert said in wrong
        assert "--meta" not in wrong


@pytest.mark.usefixtures("home")
def test_out_to_mlflow_and_in_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_model(tmp_path / "model", {"a": torch.ones(8)})
    assert strata(monkeypatch, "models", "push", "model", "--name", "chat", "--meta", "license=mit") == 0
    assert strata(monkeypatch, "models", "export", "chat@v1", "out", "--format", "mlflow") == 0
    assert strata(monkeypatch, "models", "import", "out", "--name", "other") == 0
    assert "other@v1" in capsys.readouterr().out
    assert strata(monkeypatch, "models", "search", "license = mit", "--json") == 0
    assert [row["model"] for row in json.loads(capsys.readouterr().out)] == ["chat", "other"]
    assert strata(monkeypatch, "models", "export", "chat", "new", "--format", "onnx") == 1
    assert "take huggingface or mlflow" in capsys.readouterr().err


@pytest.mark.usefixtures("home")
def test_a_key_may_do_what_its_role_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_model(tmp_path / "model", {"a": torch.ones(8)})
    ring = KeyRing(ClusterSettings(state_dir=tmp_path / "state").keys_file)
    for role, words, permission in (
        ("monitor", ("search", "a = b"), "registry.read"),
        ("user", ("push", "model", "--name", "chat"), "registry.push"),
        ("developer", ("push", "model", "--name", "chat"), None),
        ("developer", ("show", "chat"), None),
        ("developer", ("alias", "chat@v1", "prod"), "registry.promote"),
        ("developer", ("stage", "chat@v1", "candidate"), "registry.promote"),
        ("developer", ("gc",), "registry.maintain"),
        ("admin", ("alias", "chat@v1", "prod"), None),
        ("developer", ("rollback", "chat@prod"), "registry.promote"),
        ("admin", ("gc",), None),
    ):
        monkeypatch.setenv("STRATA_API_KEY", ring.issue("bob", "acme", role, 0))
        assert strata(monkeypatch, "models", *words) == (0 if permission is None else 1), (role, words)
        if permission:
            assert f"bob lacks the permission {permission}" in capsys.readouterr().err


@pytest.mark.usefixtures("home")
def test_what_keeps_webhooks_from_being_told_is_said(monkeypatch, capsys, tmp_path: Path) -> None:
    def said() -> str:
        assert strata(monkeypatch, "models", "webhooks") == 0
        return capsys.readouterr().out

    assert "No webhook is configured" in said()
    hook = {"url": "https://ci.example.com/x", "secret_env": "CI_SECRET"}
    Path("strata.yaml").write_text(yaml.safe_dump({"registry": {"webhooks": [hook]}}))
    monkeypatch.delenv("CI_SECRET", raising=False)
    assert "registry.webhooks.0.secret_env: CI_SECRET is not accepted; it is not set here" in said()
    monkeypatch.setenv("CI_SECRET", "short")
    assert "at least 24 bytes" in said()
    monkeypatch.setenv("CI_SECRET", "x" * 32)
    assert "secret_env" not in said()
    monkeypatch.delenv("CI_SECRET")
    kept = tmp_path / "state" / "webhooks" / "CI_SECRET"
    kept.parent.mkdir(parents=True)
    kept.write_text("x" * 32)
    assert "secret_env" not in said()


@pytest.mark.usefixtures("home")
def test_small_things_say_what_there_is_and_what_was_done(monkeypatch, capsys, tmp_path: Path) -> None:
    def run(*words: str, status: int = 0) -> str:
        assert strata(monkeypatch, "models", *words) == status, capsys.readouterr()
        captured = capsys.readouterr()
        return captured.err if status else captured.out

    for value in range(11):
        write_model(tmp_path / "model", {"a": torch.full((8,), float(value))})
        run("push", "model", "--name", "chat")
    run("tag", "chat@v1", "first")
    run("alias", "chat@v2", "prod")
    assert "chat@prod was at v2 already" in run("alias", "chat@v2", "prod", "--from", "v2")
    assert "chat@beta is v1 " in run("alias", "chat@v1", "beta")
    run("remove", "chat@beta")
    rows = [line.split()[:2] for line in run("log", "chat@v1").splitlines()]
    assert ["v1", "draft"] in rows, "though it has a tag that comes first by its letters"
    assert "no version, alias or branch chat@nope; there is v1-v11, first, main, prod\n" in run(
        "show", "chat@nope", status=1
    )
    assert "no alias, tag or branch chat@nope; there is first, prod\n" in run("remove", "chat@nope", status=1)
    for words in (("checkout", "chat@v2", "/proc/foo"), ("export", "chat@v2", "/proc/foo"),
                  ("checkout", "chat", "model/config.json/x")):  # fmt: skip
        said = run(*words, status=1)
        assert f"the folder {words[2]} cannot be made (" in said
        assert "not a fault that Strata knows" not in said
    index = tmp_path / "state" / "registry" / "metadata.db"
    for file in index.parent.glob("metadata.db*"):
        file.unlink()
    index.write_bytes(b"no database")
    assert "strata models reindex makes it anew" in run("search", "version = v2", status=1)
    said = run("reindex")
    assert "the catalogue was broken; what there was lies in" in said
    assert "11 versions are in the catalogue" in said
    assert index.with_name("metadata.db.broken").read_bytes() == b"no database"
    assert "chat@v2" in run("search", "version = v2")
    assert "broken" not in run("reindex")


def test_what_was_told_is_listed(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hook = {"url": "https://ci.example.com/x", "secret_file": "secret"}
    settings = yaml.safe_load(Path("strata.yaml").read_text()) if Path("strata.yaml").exists() else {}
    Path("strata.yaml").write_text(yaml.safe_dump(settings | {"registry": {"webhooks": [hook]}}))
    assert strata(monkeypatch, "models", "webhooks", "--json") == 0
    problem = "registry.webhooks.secret_file: secret is not accepted; it cannot be read (No such file or directory)"
    assert json.loads(capsys.readouterr().out) == {"renewed": 0, "events": [], "problems": [problem]}
    write_model(home / "model", {"a": torch.ones(8)})
    outbox = Outbox(registry_of(load(None, {**os.environ}).settings))
    outbox.gather({hook_id(hook["url"]): ()})
    assert strata(monkeypatch, "models", "push", "model", "--name", "chat") == 0
    outbox.gather({hook_id(hook["url"]): ()})
    outbox.failed(outbox.due(hook_id(hook["url"]))[0], "HTTP 500", None)
    capsys.readouterr()
    assert strata(monkeypatch, "models", "webhooks", "--again") == 0
    assert "1 events are told again" in capsys.readouterr().out
    assert strata(monkeypatch, "models", "webhooks", "--json") == 0
    (event, _) = json.loads(capsys.readouterr().out)["events"][::-1]
    assert (event["type"], event["url"], event["state"]) == ("version.created", hook["url"], "waits")
