import json
import shutil
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from actors.models import load
from actors.quantization.measure import measure
from cluster.errors import InvalidRequest, ModelInvalid, StrataError
from pipelines.cli import main, quantize
from pipelines.cli.quantize import CALIBRATION_SEED, MEASURED_SEED, Asked, run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model that reads bytes."""
    logging.disable_progress_bar()
    path = tmp_path_factory.mktemp("models") / "tiny"
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    config = AutoConfig.for_model(
        "qwen3", vocab_size=260, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=1024, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=257, pad_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).bfloat16().save_pretrained(path)
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text("{}")
    return path


@pytest.fixture(autouse=True)
def same_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring costs a start of Python for each side; a test of its own has it."""
    monkeypatch.setattr(quantize, "measured", measure)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "sample.txt"
    file.write_text("\n".join(f"line {number} says that {number} is not {number + 1}" for number in range(120)))
    return file


def test_a_folder_and_its_report(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(model, Asked("int8", out=tmp_path / "small", per_task=1), as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "small/quantization.json").read_text())
    assert printed["method"] == "rtn"
    assert printed["after"]["weight_bytes"] < 0.3 * printed["float32_bytes"]
    assert printed["after"]["perplexity"] == pytest.approx(printed["before"]["perplexity"], rel=0.01)
    assert printed["after"]["asked"] == 10
    assert set(printed["after"]["tokens_a_second"]) == {"1", "8", "32"}
    assert len(printed["sensitivities"]) == 9
    ET.parse(tmp_path / "small/quantization.svg")
    assert not isinstance(load(tmp_path / "small").embedding, torch.Tensor)


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_methods_calibrate_on_the_users_text(
    model: Path, text: Path, tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(model, Asked("int4", method, text, tmp_path / "small", report=False), as_json=False)
    shown = capsys.readouterr()
    assert "Serve it as it is." in shown.out
    assert f"calibrate by {method}" in shown.err
    assert not (tmp_path / "small/quantization.json").exists()
    assert load(tmp_path / "small").layers[0].down.weight.bits == 4


def test_a_folder_that_cannot_be_served_is_said_to_lack_its_tokenizer(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(model, tmp_path / "mute")
    (tmp_path / "mute" / "tokenizer.json").unlink()
    run(tmp_path / "mute", Asked("int8", report=False), as_json=False)
    said = " ".join(capsys.readouterr().out.split())
    assert "To be served it lacks tokenizer.json" in said
    assert "Serve it as it is" not in said


def test_smoothquant_readies_for_bytes(model: Path, text: Path, tmp_path: Path) -> None:
    run(model, Asked("int8", "smoothquant", text, tmp_path / "small", report=False), as_json=False)
    said = json.loads((tmp_path / "small/config.json").read_text())["quantization_config"]
    assert said["format"] == "int-quantized"
    load(tmp_path / "small")


def test_a_failure_leaves_the_earlier_result_and_a_success_all_of_the_new(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "small"
    run(model, Asked("int8", out=out, per_task=0), as_json=True)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    with monkeypatch.context() as patched, pytest.raises(RuntimeError):
        patched.setattr(quantize, "write", failing)
        run(model, Asked("int4", out=out), as_json=True)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    run(model, Asked("int4", out=out, report=False), as_json=True)
    assert load(out).layers[0].down.weight.bits == 4
    assert not (out / "quantization.json").exists()
    assert not (out / "quantization.svg").exists()
    assert list(tmp_path.iterdir()) == [out]


def failing(source: Path, target: Path, *_: object) -> None:
    (target / "model.safetensors").write_bytes(b"half")
    raise RuntimeError("no space left")


def test_somebody_elses_folder_is_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"theirs")
    with pytest.raises(InvalidRequest, match="name a new folder"):
        run(model, Asked("int8", out=tmp_path, report=False), as_json=True)
    assert (tmp_path / "model.safetensors").read_bytes() == b"theirs"


def test_by_the_command_line(
    model: Path, text: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--to", "int4", "--calibrate", str(text), "--ignore", "layers.0.mlp.down", "--keep-embedding"]
    monkeypatch.setattr(sys, "argv", ["strata", "quantize", str(model), *flags])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    out = model.with_name("tiny-int4")
    shown = capsys.readouterr().out
    assert "perplexity" in shown
    assert "suffers most alone" in shown
    report = json.loads((out / "quantization.json").read_text())
    assert (report["method"], report["left"]) == ("gptq", ["lm_head", "model.layers.0.mlp.down_proj"])
    assert report["after"]["exact_match"] is None, "only the starter was taught the tasks"
    assert isinstance(load(out).embedding, torch.Tensor)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (Asked("int3"), "int8, int4, fp8"),
        (Asked("int4", "magic"), "rtn, awq, gptq, smoothquant"),
        (Asked("fp8", "gptq"), "only rounded"),
        (Asked("int4", "smoothquant"), "--to int8"),
        (Asked("int8", calibrate=Path("/nowhere")), "--calibrate: /nowhere .*No such file"),
        (Asked("int8", calibrate=Path("/")), "--calibrate: / .*directory"),
        (Asked("int8", calibrate=Path(sys.executable)), "not UTF-8"),
        (Asked("fp8", calibrate=Path(__file__), report=False), "reads no text"),
        (Asked("int8", per_task=-3), "--per-task: -3"),
        (Asked("int8", per_task=3, report=False), "drop --no-report"),
        (Asked("int8", ignore=("re:(",)), "--ignore: re:"),
        (Asked("int8", ignore=("",)), "--ignore: .*a part of"),
        (Asked("int8", ignore=("layer.1.mlp.down_proj",)), r"nearest is .*layers\.1\.mlp\.down_proj"),
        (Asked("int8", ignore=("lm_head",)), "nearest is embed_tokens"),
        (Asked("int8", ignore=("layers", "embed")), "nothing to round"),
        (Asked("int8", out=Path("/proc/foo")), "--out: /proc/foo"),
        (Asked("int8", out=Path("/etc/passwd")), "name a folder"),
    ],
)
def test_what_makes_no_sense_is_refused(model: Path, asked: Asked, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        run(model, asked, as_json=False)


def test_a_part_that_stays_in_floats_does_not_suffer(
    model: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(model, Asked("fp8", calibrate=text, out=tmp_path / "small", ignore=("lm_head",)), as_json=False)
    report = json.loads((tmp_path / "small/quantization.json").read_text())
    assert "embedding" not in {one["part"] for one in report["sensitivities"]}
    assert report["text"] == "sample.txt"
    assert "measured on sample.txt" in capsys.readouterr().out
    assert "on sample.txt" in (tmp_path / "small/quantization.svg").read_text()


def test_the_model_itself_is_never_written(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="another folder"):
        run(model, Asked("int8", out=model), as_json=False)
    with pytest.raises(ModelInvalid):
        run(tmp_path, Asked("int8"), as_json=False)


def test_what_is_measured_is_not_what_was_calibrated_with(text: Path) -> None:
    used = [piece for pieces in list(quantize._text(text, CALIBRATION_SEED))[:60] for piece in pieces]
    held = [piece for pieces in list(quantize._text(text, MEASURED_SEED))[:60] for piece in pieces]
    assert not set(used) & set(held)
    ours = ["".join(text for text, _ in pieces) for pieces, _ in zip(quantize._text(None, 7), range(9), strict=False)]
    assert all("<|im_start|>assistant\n" in one for one in ours)


def test_figures_of_a_text_that_the_model_does_not_know_are_said_to_mean_nothing(
    model: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quantize, "measured", lambda wanted: replace(measure(wanted), perplexity=90_037.0))
    run(model, Asked("int8", "rtn", text, tmp_path / "small"), as_json=False)
    shown = capsys.readouterr()
    assert "the model does not know sample.txt: guessing among its 260 tokens" in " ".join(shown.err.split())
    assert "q with k and v (qkv)" in " ".join(shown.out.split())


def test_a_text_too_short_to_measure_on_is_named(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "empty.txt"
    file.touch()
    with pytest.raises(
        InvalidRequest, match=rf"^--calibrate: {file}, of which 0 tokens are read, .*128 tokens at least"
    ):
        run(model, Asked("int4", calibrate=file, out=tmp_path / "small"), as_json=True)


def test_a_report_that_cannot_be_made_costs_no_weights(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise StrataError("its process was killed")

    monkeypatch.setattr(quantize, "measured", killed)
    with pytest.raises(StrataError, match=r"small is written and can be served.*was killed"):
        run(model, Asked("int8", out=tmp_path / "small"), as_json=True)
    load(tmp_path / "small")


def test_an_interrupt_while_it_is_measured_costs_no_weights(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "small"
    run(model, Asked("int8", out=out, per_task=0), as_json=True)
    monkeypatch.setattr(quantize, "measured", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(model, Asked("int4", out=out), as_json=True)
    assert load(out).layers[0].down.weight.bits == 4
    assert not (out / "quantization.json").exists()
    assert list(tmp_path.iterdir()) == [out]
    assert f"the weights are in {out}; the report is missing" in capsys.readouterr().err.replace("\n", " ")


def test_room_is_looked_for_first(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize, "free_bytes", lambda _: 1000)
    with pytest.raises(InvalidRequest, match="GB free"):
        run(model, Asked("int8", out=tmp_path / "small"), as_json=True)
    assert not list(tmp_path.iterdir())


def test_the_present_folder_is_a_model(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(model, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    run(Path(), Asked("int8", report=False), as_json=True)
    assert (tmp_path / "here-int8" / "model.safetensors").is_file()


@pytest.mark.parametrize("wrong", [None, "{"])
def test_a_tokenizer_that_cannot_be_read_is_named(model: Path, tmp_path: Path, wrong: str | None) -> None:
    shutil.copytree(model, tmp_path / "here")
    (tmp_path / "here" / "tokenizer.json").unlink()
    if wrong is not None:
        (tmp_path / "here" / "tokenizer.json").write_text(wrong)
    with pytest.raises(ModelInvalid, match=r"tokenizer\.json.*fetch all files"):
        run(tmp_path / "here", Asked("int8", out=tmp_path / "small"), as_json=True)


def test_rows_begin_as_the_tokenizer_begins_a_text_and_lines_do_not(model: Path, text: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "here")
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    begin = tokenizer.token_to_id("<|im_start|>")
    tokenizer.post_processor = processors.TemplateProcessing(
        "<|im_start|> $A", special_tokens=[("<|im_start|>", begin)]
    )
    tokenizer.enable_truncation(7)
    tokenizer.save(str(tmp_path / "here" / "tokenizer.json"))
    held = quantize._sample(tmp_path / "here", text, CALIBRATION_SEED, 8)
    assert (held.tokens[:, 0] == begin).all()
    assert not (held.tokens[:, 1:] == begin).any()
    assert not held.counted[:, 0].any()
    assert held.tokens.shape[1] > 100
