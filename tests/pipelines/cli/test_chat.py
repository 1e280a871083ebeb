"""A conversation in the terminal, or through a pipe."""

import io
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.errors import InvalidRequest
from pipelines.cli import chat
from pipelines.cli.chat import Asked


class Echo:
    """A client that says what it hears."""

    def stream(self, turns: list[dict[str, str]], model: str, **sampling: Any) -> Iterator[str]:
        turns[-1]["content"].encode()  # as HTTP would
        yield f"{model}: {turns[-1]['content']}"


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_a_line_that_is_no_text_is_refused_and_the_next_is_answered(
    errors: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    piped = io.TextIOWrapper(io.BytesIO(b"\xff\xfe bad\nfine\n\nnever\n"), "utf-8", errors)
    monkeypatch.setattr("sys.stdin", piped)
    chat.converse(Echo(), "m", Asked(None, 0.0, None))  # type: ignore[arg-type]
    said = capsys.readouterr()
    assert said.out == "m: fine\n"
    assert "message: character 1 is not accepted; it is no text: send UTF-8" in said.err


def test_a_message_of_the_command_line_too() -> None:
    assert chat.well_formed("天") == "天"
    with pytest.raises(InvalidRequest, match="character 3"):
        chat.well_formed("ab\udcff")
