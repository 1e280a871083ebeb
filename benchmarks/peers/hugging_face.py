"""Hugging Face's `generate` with its defaults for a CPU: SDPA attention and a dynamic cache."""

import torch
import transformers
from transformers import AutoModelForCausalLM

from benchmarks.peers.workload import Generate, Order, serve


def load(order: Order) -> tuple[Generate, dict[str, str]]:
    """Load with the defaults of a user who asks for bf16."""
    torch.set_num_threads(order.threads)
    transformers.utils.logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(order.path, dtype=torch.bfloat16).eval()

    @torch.inference_mode()
    def generate(prompts, new_tokens):
        ids = torch.tensor(prompts)
        made = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            do_sample=False,
            pad_token_id=0,
        )
        assert made.shape[1] == ids.shape[1] + new_tokens

    return generate, {"torch": torch.__version__, "transformers": transformers.__version__}


if __name__ == "__main__":
    serve(load)
