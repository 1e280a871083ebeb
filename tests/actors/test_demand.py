"""What is wanted of each model and how its gangs fare, as the controller hears it."""

from dataclasses import replace

from actors.demand import FORGOTTEN_SECONDS, SILENCE_SECONDS, Demand, Fare, Wish
from tests.actors.engine.test_lately import Clock

FARE = Fare(0.5, 0.25, 0.75, 0.125, 3.0, busy=False, context_tokens=64)
QUIET = Wish(0, 0, 0)


async def test_a_gang_s_report_grows_old_and_goes_with_it() -> None:
    clock = Clock()
    demand = Demand(clock)
    await demand.fares("m", "a", FARE)
    clock.now += 3
    await demand.fares("m", "b", FARE)
    said = await demand.weigh("m", {})
    assert [report.pop("age") for report in said["reports"]] == [3.0, 0.0]
    assert said["reports"][0] == {
        "waiting": 0.5, "kv_used": 0.25, "running": 0.75, "first_token": 0.125, "requests_per_second": 3.0,
    }  # fmt: skip
    await demand.leaves("m", "a")
    await demand.leaves("m", "never there")
    assert len((await demand.weigh("m", {}))["reports"]) == 1
    clock.now += FORGOTTEN_SECONDS + 1
    assert not (await demand.weigh("m", {}))["reports"]


async def test_a_request_under_way_or_come_and_gone_is_no_idleness() -> None:
    clock = Clock()
    demand = Demand(clock)

    async def idle(wish: Wish | None = None, fare: Fare | None = None) -> float:
        clock.now += 5
        if wish:
            await demand.wishes("g", {"m": wish})
        if fare:
            await demand.fares("m", "a", fare)
        said: float = (await demand.weigh("m", {}))["idle"]
        return said

    await demand.weigh("m", {})
    assert await idle() == 5
    assert await idle(Wish(0, 0, 7)) == 10  # a gateway that is new here may have come late
    assert await idle(Wish(0, 0, 7)) == 15
    assert await idle(Wish(0, 0, 8)) == 0
    assert await idle(Wish(0, 1, 8)) == 0
    assert await idle(Wish(0, 0, 8), FARE) == 0  # it has just come up
    assert await idle(Wish(0, 0, 8), FARE) == 5
    assert await idle(Wish(0, 0, 8), replace(FARE, busy=True)) == 0


async def test_what_waits_is_summed_over_the_gateways_that_live() -> None:
    clock = Clock()
    demand = Demand(clock)
    await demand.wishes("g", {"m": Wish(2, 0, 2), "n": QUIET})
    clock.now += 5
    await demand.wishes("h", {"m": Wish(3, 0, 3)})
    assert (await demand.weigh("m", {}))["held"] == 5
    assert (await demand.weigh("n", {}))["held"] == 0
    clock.now += SILENCE_SECONDS - 1
    assert (await demand.weigh("m", {}))["held"] == 3


async def test_what_a_gang_holds_is_learnt_from_it_or_from_a_gateway_that_knew_one() -> None:
    demand = Demand()
    assert await demand.wishes("g", {"m": QUIET}) == {"m": 0}
    assert not (await demand.weigh("m", {}))["known"]
    await demand.wishes("h", {"m": replace(QUIET, context_tokens=32)})
    assert await demand.wishes("g", {"m": QUIET}) == {"m": 32}
    await demand.fares("m", "a", FARE)
    assert await demand.wishes("g", {"m": QUIET}) == {"m": 64}
    assert (await demand.weigh("m", {}))["known"]


async def test_what_was_decided_is_told_for_a_while() -> None:
    clock = Clock()
    demand = Demand(clock)
    await demand.weigh("m", {})
    assert await demand.decided() == {}
    await demand.weigh("m", {"wanted": 2, "reason": "queues"})
    clock.now += 4
    await demand.weigh("m", {})
    assert await demand.decided() == {"m": {"wanted": 2, "reason": "queues", "seconds_ago": 4.0}}
    clock.now += FORGOTTEN_SECONDS
    assert await demand.decided() == {}
