"""Optimum's export of a folder for OpenVINO GenAI, with its defaults. Runs in an environment of its own.

PYTHON -m benchmarks.peers.openvino_export FOLDER INTO none|int8|int4
"""

import sys

if __name__ == "__main__":
    from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig

    source, target, precision = sys.argv[1:]
    bits = {"none": None, "int8": 8, "int4": 4}[precision]
    rounding = {} if bits is None else {"quantization_config": OVWeightQuantizationConfig(bits=bits)}
    OVModelForCausalLM.from_pretrained(
        source, export=True, compile=False, load_in_8bit=False if bits is None else None, dtype="auto", **rounding
    ).save_pretrained(target)
