"""What does it cost a decode step of 32 sequences to hold them all to a JSON schema?

    python -m benchmarks.structured_output [--size S|M|L] [--rounds N]

The same random checkpoint with and without a schema, round by round in both orders: milliseconds of the processor and
of the clock per step of 32, medians. `text` is one long string, an eighth of whose tokens are drawn again; `records` is
a list of small objects, which a random model would not write: nearly every token is drawn a second time from a mask.
`person` is the small trained model in models/starter, asked for three fields as JSON: it follows its schema by itself,
as trained models do, each round about other people, and a step is a 32nd of the time per token. Writes
results/structured_output.json.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from actors.engine import LLM, SamplingParams
from benchmarks.peers.checkpoint import CACHE, COMMON, checkpoint
from benchmarks.record import quiet, write

BATCH, PROMPT, TOKENS = 32, 64, 128
RECORD = {
    "type": "object",
    "properties": {"id": {"type": "integer"}, "name": {"type": "string", "maxLength": 12}, "done": {"type": "boolean"}},
    "required": ["id", "name", "done"],
    "additionalProperties": False,
}
SCHEMAS = {
    "text": {"type": "string", "minLength": 4000},
    "records": {"type": "array", "items": RECORD, "minItems": 1000},
}
STARTER = Path(__file__).parents[1] / "models" / "starter"
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "city": {"type": "string"}},
    "required": ["name", "age", "city"],
    "additionalProperties": False,
}
NAMES = (
    "Anna",
    "Tom",
    "Maria",
    "Peter",
    "Julia",
    "David",
    "Laura",
    "Paul",
    "Ida",
    "Otto",
    "Nora",
    "Emil",
    "Ruth",
    "Hugo",
)
CITIES = ("Berlin", "Paris", "London", "Madrid", "Rome", "Vienna", "Prague", "Oslo", "Lisbon", "Athens")


def folder(size: str) -> Path:
    """The checkpoint with a vocabulary that spells bytes: JSON cannot be written in made-up words."""
    source = checkpoint(size)
    made = CACHE / f"{source.name}-bytes"
    made.mkdir(exist_ok=True)
    for name in ("config.json", "model.safetensors", "generation_config.json"):
        if (source / name).exists() and not (made / name).exists():
            (made / name).symlink_to(source / name)
    if not (made / "tokenizer.json").exists():
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>"}
        (made / "tokenizer_config.json").write_text(json.dumps(config))
        _vocabulary(COMMON["vocab_size"]).save(str(made / "tokenizer.json"))
    return made


def _vocabulary(size: int) -> Tokenizer:
    """Bytes and pairs of what is there already, drawn at random from letters and JSON's signs."""
    dice, tokens = Random(0), sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*"abcdefghijklmnopqrstuvwxyzĠ", '"', ",", ":", "{", "}", "[", "]", "1", "2"]
    known, merges = set(tokens), []
    while len(tokens) < size - 1:
        left, right = dice.choice(pieces), dice.choice(pieces)
        if len(left + right) <= 8 and left + right not in known:
            known.add(left + right)
            tokens.append(left + right)
            pieces.append(left + right)
            merges.append((left, right))
    backend = Tokenizer(models.BPE({token: place for place, token in enumerate(tokens)}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|end|>"])
    return backend


def sentences(llm: LLM, turn: int) -> list[list[int]]:
    """What the starter is asked: a person each, as its training data puts it, others in each turn."""
    dice = Random(turn)
    people = [(dice.choice(NAMES), dice.choice(CITIES), dice.randrange(18, 90)) for _ in range(BATCH)]
    asked = [
        f"Extract name, age, city as JSON: My name is {name}, I am {age} and I live in {city}."
        for name, city, age in people
    ]
    return [llm.get_tokenizer().chat([{"role": "user", "content": text}]) for text in asked]


def timed(llm: LLM, prompts: list[list[int]], params: SamplingParams) -> tuple[float, float]:
    """Milliseconds of the processor and of the clock for as many tokens as a step of the batch makes."""
    processor, clock = time.process_time(), time.perf_counter()
    answers = llm.generate(prompts, params)
    took = time.process_time() - processor, time.perf_counter() - clock
    steps = sum(len(answer.outputs[0].token_ids) for answer in answers) / len(prompts)
    return 1e3 * took[0] / steps, 1e3 * took[1] / steps


def compare(
    llm: LLM,
    prompts: Callable[[int], list[list[int]]],
    schema: dict,
    temperature: float,
    rounds: int,
    **more: object,
) -> dict[str, float]:
    """Milliseconds a step, plain and held, and what the schema adds in per cent; `prompts` are those of a round."""
    common = {"max_tokens": TOKENS, "temperature": temperature, "seed": 1, **more}
    kinds = {"plain": SamplingParams(**common), "held": SamplingParams(**common, structured_outputs={"json": schema})}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for params in kinds.values():
        timed(llm, prompts(rounds), params)
    for turn in range(rounds):
        llm.generate(prompts(turn), SamplingParams(max_tokens=1))  # what is cached is so for both
        for name in sorted(kinds, reverse=bool(turn % 2)):
            found[name].append(timed(llm, prompts(turn), kinds[name]))
    told = {}
    for place, what in enumerate(("processor", "clock")):
        per_step = {name: statistics.median(one[place] for one in found[name]) for name in kinds}
        told |= {f"{name}_{what}_ms": per_step[name] for name in kinds}
        pairs = zip(found["plain"], found["held"], strict=True)  # beside each other: what else runs slows down both
        added = statistics.median(held[place] / plain[place] for plain, held in pairs)
        told[f"added_{what}_percent"] = 100 * (added - 1)
    return told


def report(name: str, temperature: float, row: dict[str, float]) -> dict[str, object]:
    """Print a row; the row."""
    added = " and ".join(f"{row[f'added_{what}_percent']:+.1f} % of the {what}" for what in ("processor", "clock"))
    plain, held = row["plain_processor_ms"], row["held_processor_ms"]
    print(f"{name:8} t={temperature:.0f}  plain {plain:.2f} ms  held {held:.2f} ms  {added}", flush=True)
    return {"schema": name, "temperature": temperature, **row}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="M", choices="SML")
    parser.add_argument("--rounds", type=int, default=7)
    chosen = parser.parse_args()
    quiet()
    rows = []
    with LLM(folder(chosen.size), max_num_seqs=BATCH, max_model_len=PROMPT + TOKENS) as llm:
        prompts = [list(range(10 + row, 10 + row + PROMPT)) for row in range(BATCH)]
        for name, schema in SCHEMAS.items():
            for temperature in (0.0, 1.0):
                told = compare(llm, lambda _: prompts, schema, temperature, chosen.rounds, ignore_eos=True)
                rows.append(report(name, temperature, told))
    with LLM(STARTER, max_num_seqs=BATCH, max_model_len=256) as llm:
        for temperature in (0.0, 1.0):
            told = compare(llm, partial(sentences, llm), PERSON, temperature, 5 * chosen.rounds)
            rows.append(report("person", temperature, told))
    print(
        write(
            "structured_output",
            {"size": chosen.size, "threads": torch.get_num_threads(), "batch": BATCH, "tokens": TOKENS, "rows": rows},
        )
    )


if __name__ == "__main__":
    main()
