"""Who has gone silent is told from who says that a version has no replica."""

from pipelines.routing.hearing import GATHER_SECONDS, SILENCE_SECONDS, Gateways


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def said(number: int, ready: bool) -> dict:
    return {"number": number, "revision": 1, "ready": {"chat@v7": ready}}


def test_while_no_gateway_spoke_no_version_was_lost() -> None:
    """A gateway that was killed is there again before its links to the replicas are."""
    clock = Clock()
    gateways = Gateways(clock, {})
    clock.now += GATHER_SECONDS
    gateways.report("one", said(1, ready=True))
    gateways.begin("chat")
    gateways.look("chat", "v7")
    clock.now += SILENCE_SECONDS + 30.0
    gateways.forget()
    assert gateways.lost("chat") == 0.0
    gateways.report("two", said(1, ready=False))
    gateways.look("chat", "v7")
    assert gateways.lost("chat") == 0.0
    clock.now += 3.0
    gateways.report("two", said(2, ready=False))
    gateways.look("chat", "v7")
    assert gateways.lost("chat") == 3.0


def test_a_version_answers_where_all_who_know_it_have_a_replica() -> None:
    """A gateway that drains knows nothing of what has come since."""
    clock = Clock()
    gateways = Gateways(clock, {})
    gateways.report("new", said(1, ready=True))
    assert not gateways.answers("chat", "v7"), "others may be yet to be heard"
    clock.now += GATHER_SECONDS
    gateways.report("old", {"number": 1, "revision": 1, "ready": {"chat@v6": True}})
    assert gateways.answers("chat", "v7")
    assert not gateways.answers("chat", "v8")
    gateways.report("other", said(1, ready=False))
    assert not gateways.answers("chat", "v7")
