"""What a refusal of a body says of the value at fault."""

import pytest

from cluster.errors import InvalidRequest
from pipelines.gateway.said import message
from pipelines.gateway.settings import GatewaySettings
from pipelines.gateway.wire import chat_request


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("max_tokens", "5", 'max_tokens: "5" is not accepted; it is a whole number'),
        ("stream", "true", 'stream: "true" is not accepted; it is true or false'),
        ("stop", {"a": None}, 'stop: {"a": null} is not accepted'),
        ("messages", [], "messages: [] is not accepted"),
    ],
)
def test_a_refused_value_is_shown_as_it_was_sent(field: str, value: object, says: str) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], field: value}
    with pytest.raises(InvalidRequest) as told:
        chat_request(body, GatewaySettings())
    assert str(told.value).startswith(says)


def test_what_the_assistant_thought_reaches_the_template() -> None:
    said = {"role": "assistant", "content": "4", "reasoning_content": "2 and 2"}
    assert message(said, "messages[0]")["reasoning_content"] == "2 and 2"
    assert "reasoning_content" not in message(said | {"role": "user"}, "messages[0]")
    with pytest.raises(InvalidRequest, match=r"messages\[0\]\.reasoning_content"):
        message(said | {"reasoning_content": 7}, "messages[0]")
