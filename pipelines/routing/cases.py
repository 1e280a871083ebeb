"""What versions are asked to be judged by: questions with the answers that are right, one set by one name.

Knows questions, answers and what makes one right. Knows no model, no rollout and no clock.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.errors import InvalidRequest, sent

MOST = 1_000  # of one set: each is asked of two versions at every step
LONGEST = 32_768  # characters of one question
ANSWER_TOKENS = 256  # where a case names no other limit
MOST_TOKENS = 4_096
SETS = 8
NAME = re.compile(r"[a-z0-9_]{1,64}")
FIELDS = ("prompt", "messages", "tools", "answer", "grade", "max_tokens")
ROLES = ("system", "user", "assistant", "tool")

_NUMBER = re.compile(r"-?[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?")
_CLOSE = 1e-9


def _numbers(wanted: str, said: str) -> bool:
    """Whether the last number of the answer is the one that is wanted."""
    one, other = (_NUMBER.findall(text) for text in (wanted, said))
    if not one or not other:
        return False
    there, here = (float(found[-1].replace(",", "")) for found in (one, other))
    return abs(there - here) <= _CLOSE * max(1.0, abs(there))


GRADES: dict[str, Callable[[str, str], bool]] = {
    "exact": lambda wanted, said: wanted.strip() == said.strip(),
    "contains": lambda wanted, said: wanted.strip().casefold() in said.casefold(),
    "number": _numbers,
}


@dataclass(frozen=True, slots=True)
class Case:
    """One question. Any of `answers` is right, as `grade` compares."""

    messages: tuple[Mapping[str, str], ...]
    answers: tuple[str, ...]
    grade: str = "exact"
    max_tokens: int = ANSWER_TOKENS
    tools: tuple[Mapping[str, Any], ...] = ()

    def right(self, said: str) -> bool:
        """Whether what a model said is right."""
        return any(GRADES[self.grade](wanted, said) for wanted in self.answers)


@dataclass(frozen=True, slots=True)
class Cases:
    """A set, known by what is in it."""

    cases: tuple[Case, ...]

    def __len__(self) -> int:
        return len(self.cases)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def text(self) -> str:
        return json.dumps(self.plain, sort_keys=True)

    @property
    def plain(self) -> list[dict[str, Any]]:
        """As JSON has it, and as `of` takes it."""
        return [
            {"answer" if name == "answers" else name: value for name, value in asdict(case).items()}
            for case in self.cases
        ]


def of(rows: Any, field: str) -> Cases:
    """The set that plain values say. Raises InvalidRequest naming the place."""
    if not isinstance(rows, list | tuple) or not 0 < len(rows) <= MOST:
        raise InvalidRequest(field, sent(rows), f"it is a list of 1 to {MOST} questions with their answers")
    return Cases(tuple(_case(row, f"{field}[{place}]") for place, row in enumerate(rows)))


def read(file: Path) -> Cases:
    """The set in a JSONL file, a question a line. Raises InvalidRequest naming the line."""
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as wrong:
        reason = wrong.strerror if isinstance(wrong, OSError) else "it is not UTF-8"
        said = f"a file that cannot be read ({reason})"
        raise InvalidRequest(str(file), said, "name a file of JSON, a question a line") from None
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            rows.append(_case(json.loads(line), f"{file}:{number}"))
        except ValueError:
            raise InvalidRequest(f"{file}:{number}", line, 'write {"prompt": "...", "answer": "..."}') from None
    if not 0 < len(rows) <= MOST:
        raise InvalidRequest(str(file), f"{len(rows)} questions", f"write 1 to {MOST}, one a line")
    return Cases(tuple(rows))


def held_out(examples: Iterable[tuple[Sequence[tuple[str, str]], Sequence[Mapping[str, Any]]]]) -> Cases:
    """The set that conversations make: each ends with the answer that is wanted."""
    return Cases(
        tuple(
            Case(
                tuple({"role": role, "content": content} for role, content in turns[:-1]),
                (turns[-1][1],),
                tools=tuple(tools),
            )
            for turns, tools in examples
        )
    )


def _case(row: Any, field: str) -> Case:
    if not isinstance(row, dict):
        raise InvalidRequest(field, sent(row), 'write {"prompt": "...", "answer": "..."}')
    for name in row.keys() - set(FIELDS):
        raise InvalidRequest(f"{field}.{name}", "this unknown field", f"give {', '.join(FIELDS)}")
    answer, grade = row.get("answer"), row.get("grade", "exact")
    answers = tuple(answer) if isinstance(answer, list | tuple) else (answer,)
    if not answers or not all(isinstance(one, str) and one.strip() for one in answers):
        raise InvalidRequest(f"{field}.answer", sent(answer), "it is the right answer, or a list of right ones")
    if not isinstance(grade, str) or grade not in GRADES:
        raise InvalidRequest(f"{field}.grade", sent(grade), f"it is one of {', '.join(GRADES)}")
    tokens = row.get("max_tokens", ANSWER_TOKENS)
    if isinstance(tokens, bool) or not isinstance(tokens, int) or not 1 <= tokens <= MOST_TOKENS:
        raise InvalidRequest(f"{field}.max_tokens", sent(tokens), f"it is a whole number from 1 to {MOST_TOKENS}")
    tools = row.get("tools", [])
    if not isinstance(tools, list | tuple) or not all(isinstance(tool, dict) for tool in tools):
        raise InvalidRequest(f"{field}.tools", sent(tools), "it is a list of objects, as a request has it")
    return Case(_messages(row, field), answers, grade, tokens, tuple(tools))


def _messages(row: Mapping[str, Any], field: str) -> tuple[dict[str, str], ...]:
    prompt, said = row.get("prompt"), row.get("messages")
    if (prompt is None) == (said is None):
        raise InvalidRequest(f"{field}.prompt", sent(prompt), "give prompt, a text, or messages, a conversation")
    messages: Any = [{"role": "user", "content": prompt}] if said is None else said
    name = "prompt" if said is None else "messages"
    if not isinstance(messages, list | tuple) or not messages or not all(map(_message, messages)):
        raise InvalidRequest(f"{field}.{name}", sent(row[name]), "messages are a list of role and content, both texts")
    if sum(len(one["content"]) for one in messages) > LONGEST:
        raise InvalidRequest(f"{field}.{name}", "a longer one", f"a question has at most {LONGEST} characters")
    return tuple(messages)


def _message(one: Any) -> bool:
    fine = isinstance(one, dict) and set(one) == {"role", "content"} and one["role"] in ROLES
    return fine and isinstance(one["content"], str)
