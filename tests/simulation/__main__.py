"""Run many seeds, or one again:

python -m tests.simulation [--seeds N] [--first N]
"""

import argparse
import sys
import time

from tests.simulation.run import Broken, Outcome, run
from tests.simulation.virtual import Stuck


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    began, seen = time.monotonic(), Outcome()
    for seed in range(options.first, options.first + options.seeds):
        try:
            seen.add(run(seed))
        except (Broken, Stuck) as wrong:
            sys.exit(
                f"{wrong or 'a stream waits for ever'}\nagain: python -m tests.simulation --first {seed} --seeds 1"
            )
    print(f"{options.seeds} seeds in {time.monotonic() - began:.1f} s: {seen}")


if __name__ == "__main__":
    main()
