"""OpenVINO GenAI by its continuous batching pipeline. Runs in its own environment.

Prefix cache off, as many GiB of KV cache as are needed (it takes whole ones), the rest by default: on a CPU that keeps
keys and values in 8 bits and rounds what goes into integer products while it runs.
"""

import importlib.metadata

from benchmarks.peers.workload import Generate, Order, serve


def load(order: Order) -> tuple[Generate, dict[str, str]]:
    """Load with the room that is asked for."""
    import numpy as np
    import openvino
    import openvino_genai as genai

    scheduler = genai.SchedulerConfig()
    scheduler.cache_size = order.cache_gib()
    scheduler.max_num_seqs = order.sequences
    scheduler.enable_prefix_caching = False
    settings = {"INFERENCE_NUM_THREADS": order.threads}
    pipeline = genai.ContinuousBatchingPipeline(order.path, scheduler, "CPU", settings)

    def generate(prompts, new_tokens):
        wanted = genai.GenerationConfig()
        wanted.max_new_tokens, wanted.ignore_eos, wanted.do_sample = new_tokens, True, False
        wanted.set_eos_token_id(0)  # ignored; without any it refuses to generate
        ids = [openvino.Tensor(np.array([prompt], dtype=np.int64)) for prompt in prompts]
        done = pipeline.generate(ids, [wanted] * len(ids))
        return [list(one.m_generation_ids[0]) for one in done]

    return generate, {"openvino-genai": importlib.metadata.version("openvino-genai")}


if __name__ == "__main__":
    serve(load)
