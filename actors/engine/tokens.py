"""Text to tokens and back, as a Hugging Face folder says.

Reads tokenizer.json and its companions. Knows nothing of requests beyond their text. Special tokens
that a user spells are plain text, always; only a chat template and the post-processor write real ones.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from actors.engine.chat_template import ChatTemplate
from actors.engine.conversation import Message, readable, refuse_surrogates
from actors.engine.detokenizer import Detokenizer, Piece
from actors.engine.folder import chat_templates, end_tokens, read_text, require, special_names
from actors.engine.quotes import Quotes
from actors.engine.spelling import Spelling
from cluster.errors import InvalidRequest, ModelInvalid

__all__ = ["Detokenizer", "Piece", "Tokenizer"]


class Tokenizer:
    """The tokenizer of one model.

    `end_tokens`: the ids that end an answer. `vocab_size` counts added tokens; a model may have more rows.
    """

    def __init__(self, source: str, templates: Mapping[str, ChatTemplate], end_tokens: tuple[int, ...]) -> None:
        """`source` is the text of a tokenizer.json; `templates` has "default" and perhaps "tool_use"."""
        self.end_tokens = end_tokens
        self._templates = templates
        self._source = source
        self._backend = _backend(source)
        described = json.loads(source)
        self._specials = {entry["content"]: entry for entry in described.get("added_tokens", ()) if entry["special"]}
        self._special_ids = frozenset(entry["id"] for entry in self._specials.values())
        self._unknown = self._backend.token_to_id(str((described.get("model") or {}).get("unk_token")))
        # A normalizer may make a special token of something that does not look like one.
        self._hidden = described.get("normalizer") is not None and any(e["normalized"] for e in self._specials.values())
        self._quotes = Quotes(self._specials)
        self._aliases: dict[int, int] = {}
        self.spelling = Spelling(self._backend, described.get("decoder"), self._special_ids)
        self.vocab_size: int = self._backend.get_vocab_size()

    @classmethod
    def from_folder(cls, path: str | Path) -> "Tokenizer":
        """Read a model folder. Raises ModelInvalid."""
        folder = Path(path)
        require(folder)
        named = special_names(folder)
        templates = {
            name: ChatTemplate(text, f"{path}: {name}", named) for name, text in chat_templates(folder).items()
        }
        file = folder / "tokenizer.json"
        try:
            own = cls(read_text(file), templates, ())
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise ModelInvalid(str(file), f"it is no tokenizer: {error}", "save the tokenizer again") from error
        own.end_tokens = end_tokens(folder, own.id_of(named["eos_token"]) if "eos_token" in named else None)
        return own

    def id_of(self, text: str) -> int | None:
        """The token that is spelled `text`, special or not."""
        token: int | None = self._backend.token_to_id(text)
        return token

    @property
    def special_ids(self) -> frozenset[int]:
        """The tokens that are no text."""
        return self._special_ids

    def plain_tokens(self, text: str) -> list[int]:
        """The tokens of a piece of text: nothing in front, special tokens spelled out."""
        return list(_encode(self._plain, text).ids)

    def encode(self, text: str, *, field: str = "prompt") -> list[int]:
        """A completion's prompt: plain text after what the post-processor puts first. Raises InvalidRequest."""
        refuse_surrogates(text, field)
        encoded = _encode(self._plain, text, add_special_tokens=True)
        if (spelled := self._quotes.found(text)) is not None:
            said = zip(encoded.ids, encoded.special_tokens_mask, strict=True)
            self._refuse_control((token for token, added in said if not added), spelled, field)
        return list(encoded.ids)

    def chat(self, messages: Sequence[Message], tools: Sequence[Message] | None = None) -> list[int]:
        """A conversation up to where the assistant begins to speak. Raises InvalidRequest."""
        messages = readable(messages)
        refuse_surrogates(tools, "tools")
        template = self._template(tools)
        quoted, quoted_tools = self._quotes.quote(messages), self._quotes.quote(tools)
        rendered = template.render(quoted, quoted_tools)
        if quoted is messages and quoted_tools is tools and not self._hidden:
            return list(_encode(self._backend, rendered).ids)
        ids = _encode(self._plain, self._quotes.settle(rendered)).ids
        self._refuse_control(ids, "a special token", "messages")
        return [self._aliases.get(token, token) for token in ids]

    def render(self, messages: Sequence[Message], tools: Sequence[Message] | None = None) -> str:
        """The text of `chat`, for people to look at: in it, spelled and real special tokens look alike."""
        return self._template(tools).render(readable(messages), tools)

    def template_text(self, tools: Sequence[Message] | None = None) -> str:
        """The source of the template that `chat` renders; empty where there is none."""
        template = (self._templates.get("tool_use") if tools else None) or self._templates.get("default")
        return template.source if template is not None else ""

    def decode(self, tokens: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of all tokens at once."""
        return str(self._backend.decode(list(tokens), skip_special_tokens=skip_special_tokens))

    def text_of(self, token: int) -> str:
        """One token on its own; U+FFFD where it is not a whole character."""
        return self.bytes_of(token).decode("utf-8", "replace")

    def bytes_of(self, token: int) -> bytes:
        """One token's bytes, as the OpenAI schema gives them beside a log probability."""
        return self.spelling.bytes_of(token)

    @cached_property
    def _plain(self) -> Any:
        """A second tokenizer to which special tokens are plain text and their aliases are not."""
        plain = _backend(self._source)
        plain.encode_special_tokens = True
        for text, alias in self._quotes.aliases.items():
            entry = self._specials[text]
            flags = {flag: entry[flag] for flag in ("single_word", "lstrip", "rstrip", "normalized")}
            plain.add_tokens([AddedToken(alias, special=False, **flags)])
            self._aliases[plain.token_to_id(alias)] = entry["id"]
        return plain

    def _template(self, tools: Sequence[Message] | None) -> ChatTemplate:
        template = (self._templates.get("tool_use") if tools else None) or self._templates.get("default")
        if template is None:
            raise InvalidRequest(
                "messages", "a chat", "the model has no chat template: use completions, or add chat_template.jinja"
            )
        return template

    def _refuse_control(self, tokens: Iterable[int], spelled: str, field: str) -> None:
        """The last line of defence, for vocabularies that know a special token as a word, too."""
        if any(token in self._special_ids and token != self._unknown for token in tokens):
            raise InvalidRequest(field, spelled, "this model cannot read it as plain text: leave it out")


def _encode(backend: Any, text: str, *, add_special_tokens: bool = False) -> Any:
    # Without offsets, which nobody asks for, it is up to four times faster; and other threads may run meanwhile.
    return backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0]


def _backend(source: str) -> Any:
    try:
        backend = Backend.from_str(source)
    except Exception as error:  # the Rust library raises nothing narrower
        raise ValueError(str(error)) from error
    backend.no_truncation()
    backend.no_padding()
    return backend
