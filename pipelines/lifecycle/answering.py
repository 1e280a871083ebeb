"""Have a model folder answer sets: texts by Strata's own engine, choices by how likely transformers finds them.

Owns the two ways of asking. What counts as right stands in `exam`.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.lifecycle import exam
from pipelines.lifecycle.exam import Choice
from pipelines.routing.cases import Case


def measure(
    folder: str, files: Mapping[str, str], max_tokens: int, threads: int, begun: str
) -> dict[str, Any]:  # fmt: skip
    """The metrics of the model in `folder` on sets, and some of its wrong answers. For a process of its own.

    `begun`: a file that it makes first.
    """
    Path(begun).touch()
    import torch  # noqa: PLC0415 - torch is paid for only where something is measured

    torch.set_num_threads(threads)
    sets = {name: exam.read(file, f"evaluate.sets.{name}") for name, file in files.items()}
    cases = [(name, each) for name, found in sets.items() for each in found if isinstance(each, Case)]
    choices = [(name, each) for name, found in sets.items() for each in found if isinstance(each, Choice)]
    right: dict[str, list[bool]] = {name: [] for name in sets}
    wrong: dict[str, list[dict[str, str]]] = {}
    said = answered(folder, [case for _, case in cases], max_tokens) if cases else []
    for (name, case), given in zip(cases, said, strict=True):
        right[name].append(case.right(given))
        if not right[name][-1]:
            asked, expected = case.messages[-1]["content"], case.answers[0]
            told = {"set": name, "asked": asked[:500], "expected": expected[:500], "given": given[:500]}
            wrong.setdefault(name, []).append(told)
    places = likeliest(folder, [choice for _, choice in choices]) if choices else []
    for (name, choice), place in zip(choices, places, strict=True):
        right[name].append(place == choice.right)
    return {
        "metrics": exam.score(right, sets), "wrong": [one for found in wrong.values() for one in found[: exam.SHOWN]]
    }  # fmt: skip


def answered(folder: str, cases: Sequence[Case], max_tokens: int) -> list[str]:
    """What the engine says, greedily, with at most `max_tokens` or what the case allows, if that is less."""
    from actors.engine import LLM, SamplingParams  # noqa: PLC0415 - as above

    params = [SamplingParams(temperature=0.0, max_tokens=min(max_tokens, case.max_tokens)) for case in cases]
    with LLM(model=folder) as llm:
        chat = llm.get_tokenizer().chat
        prompts = [{"prompt_token_ids": list(chat(case.messages, case.tools or None))} for case in cases]
        return [output.outputs[0].text for output in llm.generate(prompts, params)]


def likeliest(folder: str, choices: Sequence[Choice]) -> list[int]:
    """Of each question the choice with the greatest likelihood a token, as lm-eval's `acc_norm` weighs length.

    A choice is what the assistant would say. Where two are equal the first counts.
    """
    import torch  # noqa: PLC0415 - as above
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    from actors.engine.tokens import Tokenizer  # noqa: PLC0415

    tokenizer = Tokenizer.from_folder(folder)
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    for item in choices:
        prompt = list(tokenizer.chat(item.messages))
        scores = []
        for choice in item.choices:
            tail = list(tokenizer.encode(choice))
            with torch.inference_mode():
                logits = network(input_ids=torch.tensor([prompt + tail]), use_cache=False).logits[0]
            told = torch.log_softmax(logits[len(prompt) - 1 : -1].float(), -1)
            likelihood = float(told.gather(1, torch.tensor(tail)[:, None]).sum()) / len(tail)
            scores.append(likelihood if math.isfinite(likelihood) else -math.inf)
        found.append(scores.index(max(scores)))
    return found
