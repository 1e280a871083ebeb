"""Write sets of the starter model's own tasks: `python -m pipelines.lifecycle.sets OUT`.

OUT/train.jsonl to fine-tune on and OUT/held_out.jsonl to evaluate on, of instances that training never sees.
"""

import argparse
import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from pipelines.lifecycle.conversation import messages
from pipelines.lifecycle.data.example import Example
from pipelines.lifecycle.data.mixture import held_out_set, stream


def main(arguments: list[str] | None = None) -> None:
    """Read the flags and write."""
    flags = argparse.ArgumentParser(prog="python -m pipelines.lifecycle.sets", description=__doc__)
    flags.add_argument("out", type=Path)
    flags.add_argument("--train", type=int, default=500, help="conversations to train on")
    flags.add_argument("--per-task", type=int, default=20, help="held-out questions of each task")
    flags.add_argument("--seed", type=int, default=1)
    given = flags.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    write(given.out / "train.jsonl", islice(plain(stream(given.seed)), given.train))
    write(given.out / "held_out.jsonl", plain(held_out_set(given.per_task)))


def plain(examples: Iterable[Example]) -> Iterable[dict[str, object]]:
    """As lines; what offers tools is left out, as lines have none."""
    for example in examples:
        if not example.tools:
            said = messages(example.turns)
            short: dict[str, object] = {"prompt": said[0]["content"], "answer": example.answer}
            yield short if len(said) == 2 else {"messages": said}


def write(file: Path, lines: Iterable[dict[str, object]]) -> None:
    """A line each."""
    file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
