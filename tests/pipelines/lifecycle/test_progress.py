import json
from threading import Event

from pipelines.lifecycle.progress import lines, read


def line(step):
    return json.dumps({"step": step, "loss": 1.5, "tokens_per_second": 99}) + "\n"


def test_half_a_line_waits_for_its_end(tmp_path):
    path = tmp_path / "progress.jsonl"
    assert read(path, 0) == ([], 0)
    path.write_text(line(0) + line(1)[:7])
    fresh, seen = read(path, 0)
    assert [entry["step"] for entry in fresh] == [0]
    path.write_text(line(0) + line(1))
    assert [entry["step"] for entry in read(path, seen)[0]] == [1]


def test_plain_lines_show_some_steps_and_the_last(tmp_path, capsys):
    (tmp_path / "progress.jsonl").write_text("".join(line(step) for step in range(40)))
    done = Event()
    done.set()
    lines(tmp_path / "progress.jsonl", 40, done)
    shown = capsys.readouterr().err.splitlines()
    assert [text.split()[1] for text in shown] == ["1/40", "26/40", "40/40"]
    assert "loss 1.5000" in shown[0]


def test_a_resumed_run_does_not_show_the_steps_before_it(tmp_path, capsys):
    before = line(0) + line(25)
    (tmp_path / "progress.jsonl").write_text(before + line(50))
    done = Event()
    done.set()
    lines(tmp_path / "progress.jsonl", 60, done, len(before))
    assert [text.split()[1] for text in capsys.readouterr().err.splitlines()] == ["51/60"]
