"""A chat answer that may call tools, in OpenAI's shapes: calls whole, or their arguments as they come.

Knows what an ear hears. Knows nothing of how a model writes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from actors.messages import TokenLogprob
from pipelines.chat import Part
from pipelines.gateway.calls import Ear, Heard
from pipelines.gateway.shapes import ChatShape, compact
from pipelines.gateway.shaping import Calling


@dataclass(slots=True)
class CallShape(ChatShape):
    """`ChatShape` with an ear a choice."""

    calling: Calling | None = None
    _ears: dict[int, Ear] = field(default_factory=dict)
    _untold: dict[int, list[TokenLogprob]] = field(default_factory=dict)

    def event(self, part: Part) -> bytes:
        """None, one or several events: the beginning of a call may wait, and its end end two things at once."""
        ear = self._ear(part.choice)
        heard = ear.feed(part.text)
        untold = [*self._untold.pop(part.choice, ()), *part.logprobs]
        if part.finish is None:
            deltas = [self._delta(part.choice, one) for one in heard]
        else:
            deltas = [self._delta(part.choice, one) for one in [*heard, *ear.end()]] or ['"delta":{}']
        if not deltas:
            self._untold[part.choice] = untold
            return b""
        last = len(deltas) - 1
        return b"".join(
            self.line(
                part.choice,
                delta,
                untold if place == 0 else (),
                self._finish(ear, part.finish) if place == last else None,
            )
            for place, delta in enumerate(deltas)
        )

    def choice(self, index: int, parts: Sequence[Part]) -> dict[str, Any]:
        """One choice of a whole answer."""
        made = ChatShape.choice(self, index, parts)
        return made | {"finish_reason": self._finish(self._ear(index), parts[-1].finish)}

    def said(self, text: str, index: int) -> dict[str, Any]:
        """The message: what was said, and what was called."""
        ear = self._ear(index)
        heard = [*ear.feed(text), *ear.end()]
        content = "".join(one.text for one in heard)
        message: dict[str, Any] = {"role": "assistant", "content": content or None, "refusal": None}
        if ear.calls:
            message["tool_calls"] = [self._call(index, number, heard) for number in range(ear.calls)]
        else:
            message["content"] = content
        return {"message": message}

    def _call(self, index: int, number: int, heard: Sequence[Heard]) -> dict[str, Any]:
        mine = [one for one in heard if one.call == number]
        function = {"name": mine[0].name, "arguments": "".join(one.arguments for one in mine)}
        return {"id": self._id(index, number), "type": "function", "function": function}

    def _delta(self, index: int, one: Heard) -> str:
        if one.call is None:
            return self.text(one.text)
        call: dict[str, Any] = {"index": one.call, "function": {"arguments": one.arguments}}
        if one.name:
            call |= {"id": self._id(index, one.call), "type": "function"}
            call["function"] = {"name": one.name, "arguments": ""}
        return f'"delta":{compact({"tool_calls": [call]})}'

    def _id(self, index: int, number: int) -> str:
        return f"call_{self.id.removeprefix('chatcmpl-')}_{index}_{number}"

    def _ear(self, index: int) -> Ear:
        if index not in self._ears:
            assert self.calling is not None
            self._ears[index] = self.calling.form.ear(self.calling.offer)
        return self._ears[index]

    def _finish(self, ear: Ear, finish: str | None) -> str | None:
        """A choice that called and was not cut off ends with that."""
        return "tool_calls" if ear.calls and not ear.open and finish == "stop" else finish
