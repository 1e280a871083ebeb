"""Out to another tool's folder and in again, to the last byte."""

import json

import pytest
import torch
import yaml

from actors.registry import exchange
from actors.registry.registry import Registry
from cluster.errors import Conflict, InvalidRequest, ModelInvalid
from tests.actors.registry.conftest import write_model


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def taken(registry, folder, **more):
    found = exchange.look(folder)
    return registry.push(
        "chat", found.folder, author="ada", beside=found.beside, metadata=found.metadata, **more
    )  # fmt: skip


@pytest.fixture
def pushed(registry, model):
    (model / "chat_template.jinja").write_text("{{ messages }}")
    (model / "code").mkdir()
    (model / "code" / "prompt.txt").write_text("Hello")
    facts = {"license": "mit", "metrics": {"exact_match": 0.9}, "data": ["a", "b"]}
    registry.push("chat", model, author="ada", metadata=facts)
    return registry


@pytest.mark.parametrize("form", exchange.FORMS)
def test_what_goes_out_comes_in_as_it_was(pushed, model, tmp_path, form):
    exchange.export(pushed, "chat", "v1", tmp_path / "out", form)
    other = Registry(tmp_path / "other", clock=lambda: 1_700_000_000.0)
    taken(other, tmp_path / "out")
    assert other.pin("chat", "v1").manifest == pushed.pin("chat", "v1").manifest
    other.checkout("chat", "v1", tmp_path / "again")
    assert contents(tmp_path / "again") == contents(model)
    exchange.export(other, "chat", "v1", tmp_path / "twice", form)
    assert contents(tmp_path / "twice") == contents(tmp_path / "out")
    assert other.show("chat").metadata == pushed.show("chat").metadata
    assert not taken(pushed, tmp_path / "out").new


def test_what_is_known_of_a_version_goes_along_in_a_file_of_ours(pushed, model, tmp_path):
    exchange.export(pushed, "chat", "v1", tmp_path / "out", "huggingface")
    assert contents(tmp_path / "out").keys() - contents(model).keys() == {"strata.json"}
    for text in ("", "[]", '{"metadata": 1}'):
        (tmp_path / "out" / "strata.json").write_text(text)
        with pytest.raises(ModelInvalid, match=r"strata\.json: is not what an export writes"):
            exchange.look(tmp_path / "out")
    pushed.push("plain", model, author="ada")
    exchange.export(pushed, "plain", "v1", tmp_path / "plain", "huggingface")
    assert contents(tmp_path / "plain") == contents(model)


def test_a_folder_as_mlflow_has_it(pushed, model, tmp_path):
    folder = tmp_path / "out"
    exchange.export(pushed, "chat", "v1", folder, "mlflow")
    said = yaml.safe_load((folder / "MLmodel").read_text())
    flavor = said["flavors"]["transformers"]
    assert (folder / flavor["model_binary"] / "config.json").is_file()
    tokenizer = folder / "components" / "tokenizer"
    assert flavor["components"] == ["tokenizer"]
    assert {path.name for path in tokenizer.iterdir()} == {"tokenizer.json", "chat_template.jinja"}
    for file in (said["flavors"]["python_function"]["env"]["conda"], "requirements.txt", "python_env.yaml"):
        assert (folder / file).is_file()
    assert "mlflow" in (folder / "requirements.txt").read_text().splitlines()
    assert said["model_uuid"] == pushed.pin("chat", "v1").manifest[:32]
    assert said["utc_time_created"] == "2023-11-14 22:13:20.000000"


@pytest.mark.parametrize("where", ["chat_template.jinja", "tokenizer_config.json", None])
def test_what_mlflow_is_told_to_ask(registry, model, tmp_path, where):
    """A model that chats takes OpenAI's messages, another one texts; the signature's parts are JSON in a text."""
    if where is not None:
        text = "{{ messages }}"
        (model / where).write_text(json.dumps({"chat_template": text}) if where.endswith("json") else text)
    registry.push("chat", model, author="ada", metadata={"task": "sums"})
    exchange.export(registry, "chat", "v1", tmp_path / "out", "mlflow")
    said = yaml.safe_load((tmp_path / "out" / "MLmodel").read_text())
    inputs = json.loads(said["signature"]["inputs"])
    assert {"inputs", "outputs", "params"} == said["signature"].keys()
    assert said["metadata"] == {"strata": {"task": "sums"}, **({"task": "llm/v1/chat"} if where else {})}
    assert said["flavors"]["transformers"].get("inference_task") == ("llm/v1/chat" if where else None)
    if where:
        assert [field["name"] for field in inputs if field["required"]] == ["messages"]
    else:
        assert inputs == json.loads(said["signature"]["outputs"]) == [{"type": "string", "required": True}]


def test_a_folder_that_mlflow_wrote(registry, tmp_path, weights):
    """The tokenizer in a folder of its own, the flavor's keys as MLflow 3 has them."""
    folder = tmp_path / "logged"
    tokenizer = folder / "components" / "tokenizer"
    tokenizer.mkdir(parents=True)
    write_model(folder / "model", weights)
    (folder / "model" / "tokenizer.json").rename(tokenizer / "tokenizer.json")
    flavors = {"transformers": {"model_binary": "model", "components": ["tokenizer"], "task": "text-generation"}}
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors, "metadata": {"team": "a"}, "run_id": "1"}))
    assert taken(registry, folder).version == "v1"
    assert set(registry.show("chat").files) == {"config.json", "model.safetensors", "tokenizer.json"}
    (folder / "model" / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelInvalid, match=r"components/tokenizer/tokenizer\.json: is not the same as"):
        taken(registry, folder)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("[]", "holds no keys"),
        ("a: [", "cannot be read as YAML"),
        ("!!python/object/apply:os.system ['true']", "cannot be read as YAML"),
        ({"flavors": {"pytorch": {"model_data": "data"}, "python_function": {}}}, "no flavor transformers but pytorch"),
        ({"flavors": {"transformers": {"model_binary": "../.."}}}, "leads out of the folder"),
        ({"flavors": {"transformers": {"model_binary": "/etc"}}}, "leads out of the folder"),
        ({"flavors": {"transformers": {"model_binary": "nowhere"}}}, "is no folder, though MLmodel"),
        ({"flavors": {"transformers": {"model_binary": "link"}}}, "is a link"),
        ({"flavors": {"transformers": {"source_model_name": "gpt2"}}}, "names no model_binary"),
        ({"flavors": {"transformers": {"model_binary": "model", "components": "x"}}}, "names no list"),
        ({"flavors": {"transformers": {"model_binary": "model", "components": [".."]}}}, "leads out of the folder"),
    ],
)
def test_a_folder_that_is_none(tmp_path, said, problem):
    write_model(tmp_path / "model", {"a": torch.ones(1)})
    (tmp_path / "link").symlink_to("/etc")
    (tmp_path / "MLmodel").write_text(said if isinstance(said, str) else json.dumps(said))
    with pytest.raises(ModelInvalid, match=problem):
        exchange.look(tmp_path)


def test_what_is_there_is_not_written_over(pushed, model, tmp_path):
    with pytest.raises(Conflict, match="folder"):
        exchange.export(pushed, "chat", "v1", model, "mlflow")
    with pytest.raises(InvalidRequest, match="huggingface or mlflow"):
        exchange.form("onnx")
    (model / "model").mkdir()
    (model / "model" / "x.txt").write_text("x")
    pushed.push("chat", model, author="ada")
    with pytest.raises(ModelInvalid, match="export it as huggingface"):
        exchange.export(pushed, "chat", "v2", tmp_path / "out", "mlflow")
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]
