"""What vLLM's users write beyond what we have: taken where it asks for nothing here, refused by name where it asks.

Knows names. Knows nothing of what our own arguments mean.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from cluster.errors import InvalidRequest, sent, shorten

ANY = ()  # any value asks for nothing here
Names = Mapping[str, tuple[tuple[Any, ...], str]]  # the values that ask for nothing, and what to do about the others

LLM: Names = {
    "trust_remote_code": (ANY, ""),  # code in a model folder is never run, whatever is said
    "enforce_eager": (ANY, ""),
    "disable_log_stats": (ANY, ""),
    "disable_custom_all_reduce": (ANY, ""),
    "max_seq_len_to_capture": (ANY, ""),
    "swap_space": (ANY, ""),
    "load_format": (("auto", "safetensors"), "weights are read from safetensors"),
    "tokenizer_mode": (("auto",), "the tokenizer of the model's folder is used"),
    "tokenizer": ((None,), "the tokenizer of the model's folder is used"),
    "skip_tokenizer_init": ((False,), "the tokenizer of the model's folder is used"),
    "revision": ((None,), "give the folder of the revision"),
    "tokenizer_revision": ((None,), "give the folder of the revision"),
    "download_dir": ((None,), "nothing is fetched: give a folder"),
    "pipeline_parallel_size": ((1,), "layers are not spread over processes: use tensor_parallel_size"),
    "data_parallel_size": ((1,), "make one LLM for each"),
    "enable_chunked_prefill": ((True, None), "prompts are always computed in chunks: see max_num_batched_tokens"),
    "enable_lora": ((False,), "adapters are not served: merge them into the weights"),
    "cpu_offload_gb": ((0,), "weights stay where they are computed"),
    "runner": (("auto", "generate"), "it generates text"),
    "task": (("auto", "generate"), "it generates text"),
}
SAMPLING: Names = {
    "detokenize": (ANY, ""),  # the text comes in any case
    "spaces_between_special_tokens": (ANY, ""),
    "output_kind": (ANY, ""),
    "best_of": ((None, 1), "ask for n choices and take the best"),
    "bad_words": ((None, []), "give logit_bias -100 for tokens that are not to come"),
    "prompt_logprobs": ((None,), "log probabilities are of answers alone"),
    "allowed_token_ids": ((None,), "use structured_outputs or logit_bias"),
    "logits_processors": ((None, []), "code is not taken into the sampler: use logit_bias or structured_outputs"),
    "truncate_prompt_tokens": ((None,), "cut the prompt before you give it"),
    "guided_decoding": ((None,), "it is called structured_outputs"),
    "extra_args": ((None, {}), "leave it out"),
}
GENERATE: Names = {
    "use_tqdm": (ANY, ""),
    "lora_request": ((None,), "adapters are not served: merge them into the weights"),
    "priority": ((None,), "all are computed together"),
}
CHAT: Names = {
    **GENERATE,
    "add_generation_prompt": ((True,), "it answers: leave it out"),
    "continue_final_message": ((False,), "use generate with the text so far"),
    "chat_template": ((None,), "the model's own template is used"),
    "tools": ((None,), "tools are offered through the gateway"),
}


def check(given: Mapping[str, Any], names: Names, own: Iterable[str]) -> None:
    """Raises InvalidRequest for an argument that nobody knows, or that asks for what is not here."""
    for name, value in given.items():
        if name not in names:
            near = difflib.get_close_matches(name, [*own, *names], n=1, cutoff=0.6)
            remedy = f"did you mean {near[0]}?" if near else "leave it out"
            raise InvalidRequest(shorten(name, 64), "this unknown argument", remedy)
        harmless, remedy = names[name]
        if harmless is not ANY and not any(type(value) is type(one) and value == one for one in harmless):
            raise InvalidRequest(name, sent(value), remedy)
