"""The offline entry: prompts in every form, choices, stops, logprobs; equal to transformers through the engine."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from actors.engine import LLM, SamplingParams
from cluster.errors import ContextTooLong, InvalidRequest, ModelInvalid, StrataError
from tests.actors.models import architectures

GREEDY = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
LENGTHS = (1, 7, 40, 150, 300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama whose tokenizer knows bytes."""
    made = tmp_path_factory.mktemp("llm") / "bytes"
    made.mkdir()
    tokenizer = bytes_only()
    tokenizer.save(str(made / "tokenizer.json"))
    (made / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    (made / "chat_template.jinja").write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        eos_token_id=tokenizer.token_to_id("<|im_end|>"),
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(made)
    return made


def bytes_only() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return tokenizer


@pytest.fixture(scope="module")
def llm(folder: Path) -> Iterator[LLM]:
    with LLM(folder, dtype="float32", kv_cache_tokens=4096) as made:
        yield made


def reference(folder: Path, prompt: list[int], count: int) -> list[int]:
    """What transformers generates."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.tensor([prompt])
    made = model.generate(  # without a mask it takes each token 0 of the prompt for padding
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, min_new_tokens=count, do_sample=False
    )
    tokens: list[int] = made[0, len(prompt) :].tolist()
    return tokens


def prompts() -> list[list[int]]:
    return [[(7 * length + index * 11) % 200 for index in range(length)] for length in LENGTHS]


def test_text_ids_and_dicts_are_the_same_prompt(llm: LLM) -> None:
    ids = llm.tokenizer.encode("a plan")
    outputs = llm.generate(["a plan", list(ids), {"prompt": "a plan"}, {"prompt_token_ids": list(ids)}], GREEDY)
    assert len({tuple(output.outputs[0].token_ids) for output in outputs}) == 1
    assert outputs[0].prompt == "a plan"
    assert outputs[0].prompt_token_ids == list(ids)
    (single,) = llm.generate("a plan", GREEDY)
    assert single.outputs[0].text == outputs[0].outputs[0].text
    assert single.outputs[0].finish_reason == "length"


def test_text_is_the_tokens_decoded(llm: LLM) -> None:
    (output,) = llm.generate("The", SamplingParams(temperature=1.0, seed=1, max_tokens=60, ignore_eos=True))
    whole = llm.tokenizer.decode(output.outputs[0].token_ids)
    half = "\N{REPLACEMENT CHARACTER}"  # a limit may cut the last character in two
    assert output.outputs[0].text.rstrip(half) == whole.rstrip(half)


def test_choices_logprobs_and_seeds(llm: LLM) -> None:
    params = SamplingParams(n=3, temperature=1.0, seed=9, max_tokens=10, logprobs=2, ignore_eos=True)
    one, two = llm.generate(["x", "x"], params)
    assert [choice.token_ids for choice in one.outputs] == [choice.token_ids for choice in two.outputs]
    assert len({tuple(choice.token_ids) for choice in one.outputs}) == 3
    for choice in one.outputs:
        assert choice.logprobs is not None
        assert [entry.token for entry in choice.logprobs] == choice.token_ids
        assert all(len(entry.top) == 2 for entry in choice.logprobs)
        assert choice.cumulative_logprob == sum(entry.logprob for entry in choice.logprobs)


def test_a_stop_string_ends_a_text_before_it(llm: LLM) -> None:
    (free,) = llm.generate("Once", SamplingParams(temperature=1.0, seed=2, max_tokens=40, ignore_eos=True))
    text = free.outputs[0].text
    stop = text[10:12]
    params = SamplingParams(temperature=1.0, seed=2, max_tokens=40, ignore_eos=True, stop=[stop])
    (output,) = llm.generate("Once", params)
    assert output.outputs[0].text == text[: text.index(stop)]
    assert (output.outputs[0].finish_reason, output.outputs[0].stop_reason) == ("stop", stop)
    assert not llm.engine.busy


def test_a_stop_id_is_named(llm: LLM) -> None:
    (free,) = llm.generate("Once", GREEDY)
    token = free.outputs[0].token_ids[4]
    (output,) = llm.generate(
        "Once", SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True, stop_token_ids=[token])
    )
    assert output.outputs[0].stop_reason == token
    assert output.outputs[0].token_ids == free.outputs[0].token_ids[: free.outputs[0].token_ids.index(token) + 1]


def test_a_chat_goes_by_the_template(llm: LLM) -> None:
    (output,) = llm.chat([{"role": "user", "content": "hi"}], GREEDY)
    assert llm.tokenizer.decode(output.prompt_token_ids) == "user: hi\n"
    both = llm.chat([[{"role": "user", "content": "hi"}], [{"role": "user", "content": "ho"}]], GREEDY)
    assert both[0].outputs[0].text == output.outputs[0].text


@pytest.mark.parametrize("bad", ["", [], [999], {"prompt_token_ids": [-1]}])
def test_a_prompt_that_is_none_is_refused(llm: LLM, bad: object) -> None:
    with pytest.raises(InvalidRequest, match=r"^prompts\[1\]: "):
        llm.generate(["fine", bad], GREEDY)  # type: ignore[list-item]
    assert not llm.engine.busy


def test_one_bad_prompt_leaves_nothing_of_the_others_behind(llm: LLM) -> None:
    with pytest.raises(ContextTooLong):
        llm.generate(["fine", [1] * 600], GREEDY)
    assert not llm.engine.busy
    assert llm.engine.load.kv_used == 0.0


@pytest.mark.parametrize("given", [{"stop_token_ids": [5, 10**6]}, {"logit_bias": {10**6: 1.0}}])
def test_a_token_id_beyond_the_vocabulary_is_refused_wherever_it_stands(llm: LLM, given: dict[str, Any]) -> None:
    (name,) = given
    with pytest.raises(InvalidRequest, match=rf"^prompts\[0\]\.{name}: 1000000 .*; token ids go from 0 to 257$"):
        llm.generate("x", SamplingParams(**given))


AMBIGUOUS = {"json": {"type": "string", "pattern": "^(([a-z]{1,200}){1,200}){1,200}$"}}


def test_a_form_too_ambiguous_to_follow_is_a_refusal_that_names_its_prompt(llm: LLM) -> None:
    (letter,) = llm.tokenizer.encode("a")
    held = SamplingParams(temperature=0.0, max_tokens=30, logit_bias={letter: 50.0}, structured_outputs=AMBIGUOUS)
    params = [GREEDY, held, GREEDY, GREEDY]
    with pytest.raises(InvalidRequest, match=r"^prompts\[1\]\.structured_outputs: a form .* is not accepted; make it"):
        llm.generate(["x"] * 4, params)
    assert not llm.engine.busy
    assert llm.engine.load.kv_used == 0.0


def test_a_model_without_numbers_says_so_once_and_how_to_find_out_why(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "ill")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = torch.full_like(weights["model.norm.weight"], torch.nan)
    save_file(weights, tmp_path / "ill" / "model.safetensors", {"format": "pt"})
    says = r"^the model's logits are no numbers .*strata models push.*dtype float32"
    with LLM(tmp_path / "ill", kv_cache_tokens=512) as ill, pytest.raises(StrataError, match=says):
        ill.generate("x", GREEDY)


def test_what_cannot_be_loaded_is_named(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ModelInvalid, match=str(tmp_path)):
        LLM(tmp_path)
    with pytest.raises(ModelInvalid, match="quantization 'int3' is not known"):
        LLM(folder, quantization="int3")
    with pytest.raises(InvalidRequest, match="params"):
        LLM(folder, kv_cache_tokens=512).generate(["a", "b"], [GREEDY])


REFUSED_ARGUMENTS = [
    ({"tensor_parallel_size": 0}, "tensor_parallel_size: 0"),
    ({"tensor_parallel_size": -1}, "tensor_parallel_size: -1"),
    ({"tensor_parallel_size": "1"}, 'tensor_parallel_size: "1"'),
    ({"max_model_len": 0}, "max_model_len: 0"),
    ({"max_model_len": 10**9}, "max_model_len: 1000000000 is not accepted; bytes was made for 512"),
    ({"max_num_seqs": 0}, "max_num_seqs: 0"),
    ({"max_num_seqs": "8"}, 'max_num_seqs: "8"'),
    ({"max_num_batched_tokens": 1}, "max_num_batched_tokens: 1"),
    ({"kv_cache_tokens": 1}, "kv_cache_tokens: 1"),
    ({"kv_cache_tokens": 16, "block_size": 32}, "kv_cache_tokens: 16"),
    ({"block_size": 0}, "block_size: 0"),
    ({"gap_stretch": 1.0}, "gap_stretch: 1.0"),
    ({"device": "tpu"}, 'device: "tpu"'),
    ({"device": "cuda:7"}, 'device: "cuda:7" is not accepted; it is one of auto, cpu, cuda'),
    pytest.param(
        {"device": "cuda"},
        'device: "cuda" is not accepted; take cpu or auto',
        marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
    ),
    ({"speculation": "much"}, 'speculation: "much"'),
    ({"speculation": "draft"}, "draft_model: null"),
    ({"gpu_memory_utilization": 90}, "gpu_memory_utilization: 90"),
    ({"seed": 0.5}, "seed: 0.5"),
    ({"pipeline_parallel_size": 2}, "pipeline_parallel_size: 2"),
    ({"max_num_sequences": 3}, "max_num_sequences: this unknown argument is not accepted; did you mean max_num_seqs?"),
]


@pytest.mark.parametrize(("given", "says"), REFUSED_ARGUMENTS)
def test_an_argument_is_refused_in_the_caller_s_words(folder: Path, given: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(says)) as caught:
        LLM(folder, **given)
    assert "pydantic" not in str(caught.value)


@pytest.mark.parametrize(
    ("prompts", "params", "says"),
    [
        (None, GREEDY, "prompts: null"),
        (5, GREEDY, "prompts: 5"),
        ([None], GREEDY, r"prompts\[0\]: null"),
        (["a", 0.5], GREEDY, r"prompts\[1\]: 0.5"),
        (["a", [1, 2.5]], GREEDY, r"prompts\[1\]: 2.5"),
        ({"text": "a"}, GREEDY, r"prompts\[0\]: a mapping without"),
        ("a", {"temperature": 0}, 'sampling_params: {"temperature": 0}'),
        ("a", [GREEDY, GREEDY], "sampling_params: a list of 2"),
    ],
)
def test_what_is_no_prompt_and_no_parameters_is_refused(llm: LLM, prompts: Any, params: Any, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        llm.generate(prompts, params)
    with pytest.raises(InvalidRequest, match="messages: 5"):
        llm.chat(5)  # type: ignore[arg-type]
    assert not llm.engine.busy


def test_what_users_of_vllm_write_is_taken_or_named(folder: Path, llm: LLM) -> None:
    harmless = {"trust_remote_code": True, "enforce_eager": True, "gpu_memory_utilization": 0.9, "swap_space": 4}
    with LLM(folder, dtype="float32", kv_cache_tokens=4096, enable_prefix_caching=False, **harmless) as made:
        asked = [[5] * 100] * 2
        first = made.generate(asked, sampling_params=GREEDY, use_tqdm=False)
        made.generate(asked, GREEDY)
        assert made.engine.load.prefix_hits == 0
        assert made.get_tokenizer().encode("a") == llm.tokenizer.encode("a")
    assert first[0].outputs[0].token_ids == llm.generate(asked, GREEDY)[0].outputs[0].token_ids
    assert SamplingParams(detokenize=False, bad_words=None, n=2) == SamplingParams(n=2)  # type: ignore[call-arg]
    for name, value in {"bad_words": ["no"], "prompt_logprobs": 1, "best_of": 4, "temprature": 0.5}.items():
        with pytest.raises(InvalidRequest, match=f"^{name}: "):
            SamplingParams(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="lora_request"):
        llm.generate("a", GREEDY, lora_request="mine")


@pytest.mark.parametrize("field", ["hidden_size", "vocab_size", "intermediate_size"])
def test_a_model_that_no_memory_holds_is_named(folder: Path, tmp_path: Path, field: str) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text()) | {field: 10**12}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelInvalid, match=re.escape(str(tmp_path))):
        LLM(tmp_path)


def test_a_folder_that_is_not_there_is_said_to_be_not_there() -> None:
    with pytest.raises(ModelInvalid, match=r"^/nope: there is no such folder; give a folder"):
        LLM("/nope")
    with pytest.raises(ModelInvalid, match="names of the Hugging Face hub are not fetched: give a folder"):
        LLM("Qwen/Qwen3-0.6B")
    with pytest.raises(InvalidRequest, match="model: null"):
        LLM(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen3", "gemma2", "gpt2", "bloom"])
def test_greedy_equals_transformers_when_blocks_are_short(name: str, tmp_path: Path) -> None:
    """Chunked prompts and reuse in one small cache, through scheduler, plan, runner and sampler."""
    checkpoint = architectures.make(name, tmp_path / name)
    bytes_only().save(str(checkpoint / "tokenizer.json"))
    (checkpoint / "tokenizer_config.json").write_text("{}")
    wanted = [reference(checkpoint, prompt, 8) for prompt in prompts()]
    params = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)
    with LLM(checkpoint, dtype="float32", kv_cache_tokens=320, max_num_batched_tokens=64, max_num_seqs=4) as small:
        outputs = small.generate(prompts(), params)
        assert [output.outputs[0].token_ids for output in outputs] == wanted
        assert small.engine.load.prefix_hits == 0
        again = small.generate(prompts()[::-1], params)
        assert [output.outputs[0].token_ids for output in again] == wanted[::-1]


def test_two_ranks_say_what_one_says(folder: Path, llm: LLM) -> None:
    alone = llm.generate(prompts(), GREEDY)
    with LLM(folder, dtype="float32", kv_cache_tokens=4096, tensor_parallel_size=2) as gang:
        together = gang.generate(prompts(), GREEDY)
        sampled = gang.generate("x", SamplingParams(temperature=1.0, seed=3, max_tokens=20, ignore_eos=True))
        gang.close()
        gang.close()
    assert [o.outputs[0].token_ids for o in together] == [o.outputs[0].token_ids for o in alone]
    (other,) = llm.generate("x", SamplingParams(temperature=1.0, seed=3, max_tokens=20, ignore_eos=True))
    assert sampled[0].outputs[0].token_ids == other.outputs[0].token_ids
