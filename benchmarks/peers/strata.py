"""Our own engine, by its offline entry."""

import torch

from actors.engine import LLM, SamplingParams
from benchmarks.peers.workload import Generate, Order, serve


def load(order: Order) -> tuple[Generate, dict[str, str]]:
    """Load as a user of the offline entry does, with the room for keys and values that the others get."""
    torch.set_num_threads(order.threads)
    # random models repeat themselves, which makes guesses come true more often than people's texts do
    llm = LLM(
        model=order.path,
        dtype="bfloat16",
        quantization=order.quantization,
        speculation="off",
        kv_cache_tokens=order.cache_tokens(),
    )

    def generate(prompts, new_tokens):
        wanted = SamplingParams(temperature=0.0, max_tokens=new_tokens, ignore_eos=True)
        done = llm.generate([list(prompt) for prompt in prompts], wanted)
        assert not any(one.num_cached_tokens for one in done), "a prompt that was seen before measures nothing"
        return [list(one.outputs[0].token_ids) for one in done]

    return generate, {"torch": torch.__version__}


if __name__ == "__main__":
    serve(load)
