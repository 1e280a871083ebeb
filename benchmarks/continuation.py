"""Does an answer that was interrupted go on with the very tokens of the unbroken one?

    python -m benchmarks.continuation [--streams N] [--size S|M|L] [--quantization none|int8|int4] [--ranks N]
                                      [--dtype auto|float32] [--kv-cache-dtype auto|int8]

Each stream, half of them greedy and half drawn by a seed, is computed once by itself alone, without guesses and without
any prefix found again. Then it is cut at random, once or twice, and taken up as after a lost replica: what is out
becomes part of the prompt, among other streams in another order, beside half-done ones, with guesses. Tells how many
of the streams are the same, token for token. Random weights are the hardest case, since many of their tokens are
nearly tied; the starter stands for a trained model. Writes results/continuation.json.
"""

import argparse
import json
import random
from dataclasses import dataclass, field
from pathlib import Path

from actors.engine import LLM, SamplingParams
from actors.engine.loop import Engine
from actors.messages import Submit
from benchmarks.peers.checkpoint import checkpoint
from benchmarks.record import RESULTS, provenance, quiet, write

STARTER = Path("models/starter")
TOKENS = 64
TOGETHER = 24  # streams side by side when they are taken up


@dataclass(slots=True)
class Stream:
    """One request; `whole` is its unbroken answer, `cuts` the places where it is lost."""

    submit: Submit
    cuts: list[int]
    whole: tuple[int, ...] = ()
    out: list[int] = field(default_factory=list)

    @property
    def same(self) -> bool:
        return tuple(self.out) == self.whole


def streams(count: int, vocabulary: int, seed: int) -> list[Stream]:
    """Prompts of 1 to 400 tokens, answers of up to 64."""
    dice, made = random.Random(seed), []
    for number in range(count):
        prompt = tuple(dice.choices(range(10, vocabulary), k=dice.choice((1, 5, 30, 100, 400))))
        params = SamplingParams(
            temperature=0.0 if number % 2 else dice.choice((0.7, 1.0)), top_p=dice.choice((0.9, 1.0)),
            max_tokens=TOKENS, ignore_eos=True,
        )  # fmt: skip
        cuts = sorted(dice.sample(range(1, TOKENS), dice.choice((1, 2))))
        made.append(Stream(Submit(0, prompt, params, seed=number), cuts))
    return made


def unbroken(engine: Engine, stream: Stream) -> tuple[int, ...]:
    """Its answer when nobody is beside it."""
    engine.add(_of(stream.submit, salt=f"alone {stream.submit.seed}"))
    out: list[int] = []
    while engine.busy:
        for _, delta in engine.step():
            out += delta.tokens
    return tuple(out)


def taken_up(engine: Engine, made: list[Stream], seed: int) -> None:
    """All of them again, each lost at its cuts and added anew with what was out."""
    dice = random.Random(seed)
    waiting, live = [(stream, list(stream.cuts)) for stream in made], {}
    dice.shuffle(waiting)
    while waiting or live:
        while waiting and len(live) < TOGETHER:
            stream, cuts = waiting.pop()
            # another replica has not its cache
            submit = _of(stream.submit, tuple(stream.out), salt=f"{stream.submit.seed} after {len(stream.out)}")
            live[engine.add(submit)] = (stream, cuts)
        for key, delta in engine.step():
            stream, cuts = live[key]
            stream.out += delta.tokens
            if delta.finish is not None:
                del live[key]
            elif cuts and len(stream.out) >= cuts[0]:  # what came beyond the cut is out, too
                engine.cancel(key)
                del live[key]
                left = [cut for cut in cuts if cut > len(stream.out)]
                waiting.insert(dice.randrange(len(waiting) + 1), (stream, left))


def _of(submit: Submit, emitted: tuple[int, ...] = (), salt: str = "") -> Submit:
    return Submit(0, submit.prompt, submit.params, submit.seed, salt=salt, emitted=emitted)


def main() -> None:
    options = _options()
    load = quiet()
    folder = STARTER if options.size is None else checkpoint(options.size)
    rounding = None if options.quantization == "none" else options.quantization
    ways = {
        "quantization": rounding,
        "dtype": options.dtype,
        "kv_cache_dtype": options.kv_cache_dtype,
        "tensor_parallel_size": options.ranks,
    }
    with LLM(folder, speculation="off", **ways) as llm:
        made = streams(options.streams, llm.tokenizer.vocab_size, 1)
        for stream in made:
            stream.whole = unbroken(llm.engine, stream)
    with LLM(folder, **ways) as llm:
        taken_up(llm.engine, made, 2)
    found = {
        "model": options.size or "starter",
        **ways,
        "streams": len(made),
        "same": sum(stream.same for stream in made),
        "greedy_same": sum(stream.same for stream in made[1::2]),
    }
    print(f"{found['same']} of {found['streams']} are the same")
    _keep(found, load)


def _keep(found: dict, load: float) -> None:
    """Beside what was found of other models and precisions."""
    file = RESULTS / "continuation.json"
    rows = json.loads(file.read_text("utf-8"))["rows"] if file.is_file() else []
    named = ("model", "quantization", "dtype", "kv_cache_dtype", "tensor_parallel_size")
    rows = [row for row in rows if any(row[name] != found[name] for name in named)]
    row = {**found, **provenance(), "load_before": load}
    write("continuation", {"question": __doc__.splitlines()[0], "rows": [*rows, row]}, load_before=load)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--size", choices=("S", "M", "L"), help="default: the starter model")
    parser.add_argument("--quantization", choices=("none", "int8", "int4"), default="none")
    parser.add_argument("--dtype", choices=("auto", "float32"), default="auto")
    parser.add_argument("--kv-cache-dtype", choices=("auto", "int8"), default="auto")
    parser.add_argument("--ranks", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
