import json
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tokenizers import Tokenizer, models
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from pipelines.bench import offline, peers
from pipelines.bench.peers import Heard
from pipelines.cli import bench, main


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model."""
    logging.disable_progress_bar()
    path = tmp_path_factory.mktemp("models") / "tiny"
    config = AutoConfig.for_model(
        "llama", vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=128, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).bfloat16().save_pretrained(path)
    Tokenizer(models.WordLevel({f"w{index}": index for index in range(64)}, unk_token="w0")).save(
        str(path / "tokenizer.json")
    )
    (path / "tokenizer_config.json").write_text("{}")
    return path


def strata(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run a command; its exit status."""
    monkeypatch.setattr(sys, "argv", ["strata", *words])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_a_folder_is_measured_and_drawn(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    model: Path,
    quantization: str,
) -> None:
    picture = tmp_path / "load.svg"
    flags = ["--streams", "1", "--streams", "3", "--requests", "4", "--prompt-tokens", "5", "--max-tokens", "6"]
    more = ["--quantization", quantization, "--picture", str(picture)]
    assert strata(monkeypatch, "bench", str(model), *flags, *more, "--json") == 0
    said = capsys.readouterr()
    document = json.loads(said.out)
    one, three = document["results"]
    assert (one["streams"], one["requests"], one["failed"]) == (1, 4, 0)
    assert (three["streams"], three["requests"]) == (3, 4), "as many as were asked for, whatever the streams"
    for row in (one, three):
        assert 0 < row["first token p50 ms"] <= row["answer p50 ms"]
        assert row["tokens/s"] == pytest.approx(row["requests"] * 6 / row["seconds"])
    assert len(ET.parse(picture).getroot().findall("{http://www.w3.org/2000/svg}circle")) == 2
    assert [line for line in said.err.splitlines() if "3 at a time" in line], "plain lines where there is no terminal"


def test_peers_stand_beside_us_and_say_why_they_do_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: Path
) -> None:
    def listen(*_: object) -> Iterator[Heard]:
        yield Heard("Fast")
        yield Heard("Fast", {"streams": 1, "failed": 0, "answer p50 ms": 5.0, "tokens/s": 4321.0, "seconds": 1.0})
        yield Heard("Absent", None, "not installed; do this")

    monkeypatch.setattr(peers, "listen", listen)
    words = ["bench", str(model), "--streams", "1", "--requests", "1", "--max-tokens", "2", "--peers"]
    assert strata(monkeypatch, *words) == 0
    said = capsys.readouterr().out
    assert {"engine", "Strata", "Fast", "4321"} <= set(said.split())
    assert "Absent: not installed; do this" in said
    assert strata(monkeypatch, *words, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["peers"]["Fast"][0]["tokens/s"] == 4321.0
    assert document["failed"] == {"Absent": "not installed; do this"}


@pytest.mark.parametrize("others", [0, 1])
def test_the_table_fits_a_terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch, others: int) -> None:
    """Each row is one line and no heading is broken within a word, with slow and fast engines."""
    row = {
        "streams": 1024, "tokens/s": 123456.7, "answer p50 ms": 987654.3, "first token p50 ms": 12345.6,
        "first token p99 ms": 987654.3, "between tokens p50 ms": 1234.5, "failed": 0, "seconds": 12345.6,
    }  # fmt: skip
    engines = (
        {"Strata": [row], "OpenVINO GenAI": [row], "Hugging Face generate": [row]} if others else {"Strata": [row]}
    )
    paper = Console(width=80, file=StringIO(), highlight=False)
    monkeypatch.setattr(bench.show, "out", paper)
    bench._print(bench.Found("m", engines))
    lines = paper.file.getvalue().splitlines()
    assert len(lines) == 3 + len(engines) + others  # the longest name takes two
    figures = ["1024", "123457", "987654", "12346", "987654", "1234", "0", "12346"]
    assert [line.split()[-8:] for line in lines[3 : 3 + len(engines)]] == [figures] * len(engines)
    assert set(" ".join(lines[:3]).split()) == {
        *("streams", "tokens", "/s", "answer", "p50", "p99", "ms", "first", "token", "next", "failed", "seconds"),
        *(["engine"] if others else []),
    }


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nowhere",), "folder: nowhere is not accepted; a Hugging Face model folder"),
        (("MODEL", "--quantization", "int3"), "quantization: int3 is not accepted; one of none, int8, int4, fp8"),
        (("--quantization", "int8"), "name a model folder as well"),
        (("--peers",), "name a model folder as well"),
        (("MODEL", "--url", "http://127.0.0.1:1"), "url: http://127.0.0.1:1 is not accepted; leave it out"),
        (("MODEL", "--picture", "a.png"), "picture: a.png is not accepted; a name that ends in .svg"),
        (("MODEL", "--picture", "no/a.svg"), "a name in a folder that exists"),
        (("MODEL", "--streams", "8", "--requests", "4"), "streams: 8 is not accepted; as many --requests at least"),
        (("MODEL", "--peers", "--quantization", "fp8"), "peers are compared in int8, int4"),
        (("MODEL", "--prompt-tokens", "100", "--max-tokens", "99"), "prompt-tokens + max-tokens: 100 + 99"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    model: Path,
    words: tuple[str, ...],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert strata(monkeypatch, "bench", *(str(model) if word == "MODEL" else word for word in words)) == 1
    assert says in capsys.readouterr().err


def test_a_request_too_long_for_the_model_is_refused_before_it_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: Path
) -> None:
    monkeypatch.setattr(offline, "LLM", None)
    assert strata(monkeypatch, "bench", str(model), "--prompt-tokens", "5000") == 1
    assert "has room for 128 together" in capsys.readouterr().err


def test_no_stream_at_all_is_misuse(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    assert strata(monkeypatch, "bench", str(model), "--streams", "0") == 2


@pytest.mark.parametrize(
    ("url", "says"),
    [("garbage", "http://HOST:PORT"), ("http://127.0.0.1:9", "nothing answers there"), (None, "strata up")],
)
def test_where_nothing_answers_is_said_before_a_key_is_looked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, url: str | None, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STRATA_CLUSTER__HTTP_PORT", "9")
    monkeypatch.setenv("STRATA_CLUSTER__STATE_DIR", str(tmp_path / "state"))
    assert strata(monkeypatch, "bench", *(["--url", url] if url else [])) == 1
    assert says in " ".join(capsys.readouterr().err.split())
