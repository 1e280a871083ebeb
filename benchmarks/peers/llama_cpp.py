"""llama.cpp through the C calls of llama-cpp-python. Runs in that package's own environment.

    PYTHON -m benchmarks.peers.llama_cpp convert FOLDER FILE
    PYTHON -m benchmarks.peers.llama_cpp quantize FILE FILE Q8_0|Q4_0

All sequences of a step go into one `llama_decode`; the next token is numpy's argmax, its cheapest sampler. It maps the
file, so its memory counts the pages of it that it has touched.
"""

import json
import sys
from pathlib import Path

from benchmarks.peers.workload import serve

UBATCH = 2048  # tokens of a step: all prompts of the largest batch at once


def convert(folder: Path, file: Path) -> None:
    """Write the Llama or Qwen3 checkpoint in `folder` as a bf16 GGUF `file`, without a vocabulary of words."""
    import gguf
    import numpy as np

    config = json.loads((folder / "config.json").read_text())
    kind = config["model_type"]
    if kind not in ("llama", "qwen3"):
        raise SystemExit(f"only Llama and Qwen3 shapes are converted, and this is {kind}")
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    writer = gguf.GGUFWriter(file, kind)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_freq_base(config.get("rope_parameters", config)["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_tokenizer_model("no_vocab")
    writer.add_rope_dimension_count(width)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[kind.upper()], config["num_hidden_layers"])
    for name, stored in _tensors(folder / "model.safetensors"):
        values = stored
        if name == "lm_head.weight" and config["tie_word_embeddings"]:
            continue
        target = names.get_name(name, try_suffixes=(".weight",))
        part = name.split(".")[-2]
        if kind == "llama" and part in heads:  # its rope turns neighbours there, not halves
            split = values.reshape(heads[part], 2, -1, values.shape[1])
            values = np.ascontiguousarray(split.swapaxes(1, 2)).reshape(values.shape)
        if values.ndim == 1:
            writer.add_tensor(target, (values.astype(np.uint32) << 16).view(np.float32))
        else:
            writer.add_tensor(target, values.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantize(source: Path, target: Path, kind: str) -> None:
    """Round the GGUF file `source` as llama.cpp's own tool does by default."""
    import ctypes

    import llama_cpp as llama

    params = llama.llama_model_quantize_default_params()
    params.ftype = {"Q8_0": llama.LLAMA_FTYPE_MOSTLY_Q8_0, "Q4_0": llama.LLAMA_FTYPE_MOSTLY_Q4_0}[kind]
    failed = llama.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params))
    assert not failed, f"{source} does not quantize to {kind}"


def _tensors(file: Path):
    import numpy as np

    raw = np.memmap(file, np.uint8, "r")
    length = int(raw[:8].view(np.uint64)[0])
    header = json.loads(raw[8 : 8 + length].tobytes())
    for name, entry in header.items():
        if name != "__metadata__":
            assert entry["dtype"] == "BF16", f"{name} is {entry['dtype']}"
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            yield name, np.array(raw[begin:end]).view(np.uint16).reshape(entry["shape"])


def load(order):
    """Load the GGUF file with the room that is asked for."""
    import ctypes
    import importlib.metadata

    import llama_cpp as llama
    import numpy as np

    quiet = llama.llama_log_callback(lambda *_: None)
    llama.llama_log_set(quiet, ctypes.c_void_p(0))
    llama.llama_backend_init()
    model = llama.llama_model_load_from_file(order.path.encode(), llama.llama_model_default_params())
    assert model, f"{order.path} does not load"
    params = llama.llama_context_default_params()
    params.n_ctx = params.n_batch = order.cached
    params.n_ubatch = min(order.cached, UBATCH)
    params.n_seq_max = order.sequences
    params.n_threads = params.n_threads_batch = order.threads
    params.kv_unified = True
    context = llama.llama_init_from_model(model, params)
    assert context, "no context"
    batch = llama.llama_batch_init(order.cached, 0, 1)
    vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))

    def fill(rows):
        for i, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[i], batch.pos[i] = token, position
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
            batch.logits[i] = wanted
        batch.n_tokens = len(rows)
        assert llama.llama_decode(context, batch) == 0

    def best(rows):
        logits = [llama.llama_get_logits_ith(context, row) for row in rows]
        return [int(np.ctypeslib.as_array(one, (vocabulary,)).argmax()) for one in logits]

    def generate(prompts, new_tokens):
        llama.llama_memory_clear(llama.llama_get_memory(context), True)
        rows = [(t, p, s, p == len(ids) - 1) for s, ids in enumerate(prompts) for p, t in enumerate(ids)]
        fill(rows)
        tokens = best([i for i, row in enumerate(rows) if row[3]])
        made = [tokens]
        for step in range(1, new_tokens):
            fill([(t, len(prompts[s]) + step - 1, s, True) for s, t in enumerate(tokens)])
            tokens = best(range(len(tokens)))
            made.append(tokens)
        return [list(column) for column in zip(*made, strict=True)]

    version = importlib.metadata.version("llama-cpp-python")
    generate.keep = quiet  # the library calls it back for as long as it lives
    return generate, {"llama-cpp-python": version}


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["convert", folder, file]:
            convert(Path(folder), Path(file))
        case ["quantize", source, target, kind]:
            quantize(Path(source), Path(target), kind)
        case _:
            serve(load)
