"""The starter model's byte-level BPE, trained on the synthetic data.

Every digit and every Chinese character is a token of its own, and a capitalized word is cut from the space before
it: a number, or a name that is copied into JSON, then consists of the same tokens wherever it stands. All 256 bytes
are in the vocabulary, so that any text can be encoded.
"""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from pipelines.lifecycle.conversation import END, PAD, SPECIAL, TEMPLATE, VISIBLE, spans
from pipelines.lifecycle.data.mixture import stream

ALONE = r"\p{Han}|\p{N}|\p{Lu}\p{Ll}*"


def train_tokenizer(vocab_size: int, seed: int, examples: int = 40_000) -> Tokenizer:
    """A tokenizer of `vocab_size` tokens at most, learnt from the training stream."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(ALONE), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=4,
        show_progress=False,
        special_tokens=[AddedToken(text, special=True, normalized=False) for text in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    # The tags of a tool call are tokens too, yet visible ones: they come after the merges, so a little room is kept.
    trainer.vocab_size = vocab_size - len(VISIBLE)
    tokenizer.train_from_iterator(texts(seed, examples), trainer)
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in VISIBLE])
    return tokenizer


def texts(seed: int, examples: int) -> Iterator[str]:
    """What the merges are learnt from: the words of conversations without their special tokens."""
    for example in islice(stream(seed), examples):
        for text, _ in spans(example.turns, None, example.tools):
            for mark in (*SPECIAL, *VISIBLE):
                text = text.replace(mark, "\n")  # noqa: PLW2901
            yield text


def write_tokenizer(tokenizer: Tokenizer, folder: Path, context_tokens: int) -> None:
    """tokenizer.json, its configuration and the chat template."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": PAD,
        "model_max_length": context_tokens,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model folder."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))
