"""Conversations as tokens to learn: an example for each turn of the assistant, by the model's own chat template.

Knows the tokenizer of a folder. Knows no weights.
"""

from pathlib import Path

from actors.engine.tokens import Tokenizer
from cluster.errors import InvalidRequest
from pipelines.lifecycle.examples import Encoded, Messages, conversations


def encode(path: Path, folder: Path, width: int) -> tuple[list[Encoded], int]:
    """All examples of at most `width` tokens, and how many were longer. Raises InvalidRequest where none is left."""
    tokenizer = Tokenizer.from_folder(folder)
    found, longer = [], 0
    for messages in conversations(path, "train.data"):
        for example in turns(messages, tokenizer):
            if len(example.tokens) > width:
                longer += 1
            else:
                found.append(example)
    if not found:
        problem = f"all {longer} examples are longer than train.width, {width}"
        raise InvalidRequest("train.data", str(path), f"{problem}; give others or a greater width")
    return found, longer


def turns(messages: Messages, tokenizer: Tokenizer) -> list[Encoded]:
    """What stands before each answer, which is read, and the answer with its end, which is learnt."""
    found = []
    for place, message in enumerate(messages):
        if message["role"] == "assistant" and place:
            read = tokenizer.chat(messages[:place])
            said = [*tokenizer.plain_tokens(message["content"]), *tokenizer.end_tokens[:1]]
            found.append(Encoded((*read, *said), (False,) * len(read) + (True,) * len(said)))
    return found
