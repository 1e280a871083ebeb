"""What MLflow wants said of a model beside it: `MLmodel` with flavors and signature, and what its environment needs.

Knows MLflow's words, of its flavor `transformers`, and imports nothing of it. Knows no version and no store.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

VERSION = "2.22.0"  # of MLflow: whose words these are; later ones read them
MODEL, OURS = "model", "strata"  # the model's folder, and the key of free metadata under which a version's own go along
PYTHON = "3.11"
CHAT = "llm/v1/chat"  # the task of a model with a template: messages in and a completion out, as OpenAI has them

_ROLE = {"role": {"type": "string", "required": True}, "content": {"type": "string", "required": True}}
_OPTIONS = {"temperature": "double", "top_p": "double", "top_k": "long", "max_tokens": "long"}
_TEXT = [{"type": "string", "required": True}]
_ASKED = [
    {"name": "messages", "type": "array", "items": {"type": "object", "properties": _ROLE}, "required": True},
    *({"name": name, "type": kind, "required": False} for name, kind in _OPTIONS.items()),
    {"name": "stop", "type": "array", "items": {"type": "string"}, "required": False},
]
_CHOICE = {
    "index": {"type": "long", "required": True},
    "finish_reason": {"type": "string", "required": True},
    "message": {"type": "object", "properties": _ROLE, "required": True},
}
_ANSWERED = [
    *({"name": name, "type": "string", "required": True} for name in ("id", "object", "model")),
    {"name": "created", "type": "long", "required": True},
    {"name": "choices", "type": "array", "items": {"type": "object", "properties": _CHOICE}, "required": True},
]


@dataclass(frozen=True, slots=True)
class Said:
    """What is known of a version: its `config.json`, whether it has a chat template, its metadata, when it was made,
    and a name that only equal content has.
    """

    config: Mapping[str, Any]
    chats: bool
    metadata: Mapping[str, Any]
    at: int
    digest: str


def described(said: Said) -> dict[str, Any]:
    """`MLmodel` of a version that lies in the folder MODEL, its tokenizer in `components/tokenizer`."""
    config, task = said.config, {"task": CHAT} if said.chats else {}
    return {
        "artifact_path": MODEL,
        "flavors": {
            "python_function": {
                "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
                "loader_module": "mlflow.transformers",
                "model_binary": MODEL,
                "python_version": PYTHON,
            },
            "transformers": {
                "code": None,
                "components": ["tokenizer"],
                "framework": "pt",
                "instance_type": "TextGenerationPipeline",
                "model_binary": MODEL,
                "pipeline_model_type": (config.get("architectures") or ["AutoModelForCausalLM"])[0],
                "source_model_name": MODEL,
                "task": "text-generation",
                "tokenizer_type": "PreTrainedTokenizerFast",
                "torch_dtype": f"torch.{config.get('dtype') or config.get('torch_dtype') or 'float32'}",
                "transformers_version": config.get("transformers_version"),
                **({"inference_task": CHAT} if said.chats else {}),
            },
        },
        "metadata": {OURS: dict(said.metadata), **task},
        "mlflow_version": VERSION,
        "model_uuid": said.digest[:32],
        "signature": {
            "inputs": json.dumps(_ASKED if said.chats else _TEXT),
            "outputs": json.dumps(_ANSWERED if said.chats else _TEXT),
            "params": None,
        },
        "utc_time_created": datetime.fromtimestamp(said.at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
    }


def requirements(config: Mapping[str, Any]) -> list[str]:
    """What pip has to install where MLflow loads or serves it."""
    version = config.get("transformers_version")
    return ["mlflow", f"transformers=={version}" if version else "transformers", "torch", "safetensors"]


def environments(needs: list[str]) -> dict[str, Any]:
    """The files that say so to virtualenv and to conda, by name; the first of them reads `requirements.txt`."""
    pip: list[Any] = [f"python={PYTHON}", "pip", {"pip": needs}]
    return {
        "python_env.yaml": {
            "python": PYTHON, "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]
        },
        "conda.yaml": {"name": "mlflow-env", "channels": ["conda-forge"], "dependencies": pip},
    }  # fmt: skip
