"""Write a folder that vLLM reads: int8 for products with activations in int8, or int4 in groups.

python -m benchmarks.peers.vllm_weights FOLDER INTO int8|int4
"""

import sys
from pathlib import Path

from actors.quantization.writing import Plan, write

if __name__ == "__main__":
    source, target, precision = sys.argv[1:]
    write(Path(source), Path(target), Plan(precision, embedding=False, activations=precision == "int8"))
