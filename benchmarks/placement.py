"""How long does it take to place a fleet, and how many nodes more than the least possible does that use?

    python -m benchmarks.placement [--seed N] [--sizes 10 100 ...]

Runs the planner on seeded fleets of 8-GPU nodes of two types in four zones, two models a node, one node of each type
kept spare: all from nothing, then with 20 single nodes lost, one at a time. The bound is Martello and Toth's L2 on the
devices of each type of machine, given the gangs that it got, or its cores or memory by volume if that is more. Writes
results/placement.json and placement.svg.
"""

import argparse

from benchmarks.record import RESULTS, quiet, write
from cluster.scheduling import simulate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sizes", type=int, nargs="+", default=simulate.SIZES)
    options = parser.parse_args()
    load = quiet()
    rows = [simulate.measure(size, options.seed) for size in options.sizes]
    print(simulate.table(rows))
    result = {"question": __doc__.splitlines()[0], **simulate.result(rows, options.seed)}
    print(f"kept in {write('placement', result, load_before=load)}")
    (RESULTS / "placement.svg").write_text(simulate.picture(rows))


if __name__ == "__main__":
    main()
