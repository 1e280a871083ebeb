"""Hugging Face's `generate` with its defaults for a CPU: SDPA attention and a dynamic cache."""

import torch
import transformers
from transformers import AutoModelForCausalLM

from benchmarks.peers.workload import Generate, Order, serve


def load(order: Order) -> tuple[Generate, dict[str, str]]:
    """Load with the defaults of a user who asks for bf16, or for float32, which others are compared with."""
    torch.set_num_threads(order.threads)
    transformers.utils.logging.disable_progress_bar()
    dtype = torch.float32 if order.quantization == "float32" else torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(order.path, dtype=dtype).eval()
    model.generation_config.eos_token_id = None  # no answer is shorter than another

    @torch.inference_mode()
    def generate(prompts, new_tokens):
        ids = torch.tensor(prompts)
        made = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=new_tokens, do_sample=False, pad_token_id=0
        )
        return made[:, ids.shape[1] :].tolist()

    return generate, {"torch": torch.__version__, "transformers": transformers.__version__}


if __name__ == "__main__":
    serve(load)
