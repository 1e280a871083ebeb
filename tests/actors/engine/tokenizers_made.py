"""Small tokenizers of the kinds that decoder-only models have, trained in a moment, and the folders they live in."""

import json
from functools import cache
from pathlib import Path

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend

from actors.engine.tokens import Tokenizer

TEXT = [
    "The quick brown fox jumps over the lazy dog, again and again and again.",
    "def main(arguments):\n    return [x * 2 for x in arguments]\n\n",
    "敏捷的棕色狐狸跳过了懒狗。你好,世界!今天天气很好。",
    "السلام عليكم ورحمة الله",
    "user system assistant tool <|im_start|>user\nhello<|im_end|>\n [INST] hi [/INST]",
] * 20

CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LLAMA = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]

QWEN_SPLIT = Regex(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@cache
def byte_level() -> str:
    """As Qwen: NFC, its regex, bytes; one added token that is not special and one that swallows spaces."""
    backend = Backend(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(QWEN_SPLIT, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False),
    )
    backend.add_special_tokens(CHATML)
    backend.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    backend.add_special_tokens([AddedToken("<|pad|>", rstrip=True, lstrip=True)])
    return backend.to_str()


def _byte_fallback(decoder: decoders.Decoder) -> Backend:
    backend = Backend(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.decoder = decoder
    backend.train_from_iterator(
        [text.replace(" ", "▁") for text in TEXT],
        trainers.BpeTrainer(
            vocab_size=520, special_tokens=LLAMA[:3] + [f"<0x{byte:02X}>" for byte in range(256)], show_progress=False
        ),
    )
    described = json.loads(backend.to_str())
    described["added_tokens"] = [entry for entry in described["added_tokens"] if entry["content"] in LLAMA]
    described["model"] |= {"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"}
    backend = Backend.from_str(json.dumps(described))
    backend.add_special_tokens(LLAMA[3:])
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))]
    )
    return backend


@cache
def llama() -> str:
    """As Llama 2: a normalizer puts the first space, the decoder takes it away."""
    backend = _byte_fallback(
        decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return backend.to_str()


@cache
def gemma() -> str:
    """As Gemma: no space in front, none taken away."""
    backend = _byte_fallback(decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]))
    backend.normalizer = normalizers.Replace(" ", "▁")
    return backend.to_str()


@cache
def metaspace() -> str:
    """As newer conversions of SentencePiece models: pre-tokenizer and decoder are Metaspace."""
    backend = _byte_fallback(decoders.Metaspace(prepend_scheme="first"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return backend.to_str()


@cache
def wordpiece() -> str:
    """A decoder that does not spell tokens one by one."""
    backend = Backend(models.WordPiece(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.train_from_iterator(
        TEXT, trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]", "[SEP]"], show_progress=False)
    )
    return backend.to_str()


KINDS = {"bytes": byte_level, "llama": llama, "gemma": gemma, "metaspace": metaspace, "wordpiece": wordpiece}


@cache
def tokenizer(kind: str) -> Tokenizer:
    """One of KINDS without a folder."""
    return Tokenizer(KINDS[kind](), {}, (0,))


def write(folder: Path, source: str, template: str | None = None, **config: object) -> Path:
    """A folder as save_pretrained leaves it, as far as tokenizers go."""
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(source, encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False} | config
    (folder / "tokenizer_config.json").write_text(json.dumps(named), encoding="utf-8")
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder
