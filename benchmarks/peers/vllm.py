"""vLLM's CPU build, by its offline entry. Runs in its own environment, with Intel's OpenMP preloaded.

Prefix cache off, as many GiB of KV cache as are needed (it takes whole ones), the rest by default. All in one process:
its engine would else compute in another one than this, whose memory and threads are counted.
"""

import importlib.metadata
import os

from benchmarks.peers.workload import Generate, Order, serve


def load(order: Order) -> tuple[Generate, dict[str, str]]:
    """Load with the room that is asked for."""
    os.environ.update(
        VLLM_CPU_KVCACHE_SPACE=str(order.cache_gib()),
        VLLM_CPU_OMP_THREADS_BIND=",".join(map(str, sorted(os.sched_getaffinity(0))[: order.threads])),
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        VLLM_NO_USAGE_STATS="1",
        HF_HUB_OFFLINE="1",
    )
    from vllm import LLM, SamplingParams

    llm = LLM(
        model=order.path,
        dtype="bfloat16",
        max_model_len=order.longest,
        max_num_seqs=order.sequences,
        enable_prefix_caching=False,
        seed=0,
    )

    def generate(prompts, new_tokens):
        wanted = SamplingParams(temperature=0.0, max_tokens=new_tokens, ignore_eos=True, detokenize=False)
        done = llm.generate([{"prompt_token_ids": list(ids)} for ids in prompts], wanted, use_tqdm=False)
        return [list(one.outputs[0].token_ids) for one in done]

    found = ("vllm-cpu", "torch")
    return generate, {name: importlib.metadata.version(name) for name in found}


if __name__ == "__main__":
    serve(load)
