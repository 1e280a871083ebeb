"""Small fleets and models by chance, what is true of every plan, and all arrangements tried the slow way."""

from collections import Counter
from collections.abc import Iterator, Sequence

from hypothesis import strategies as st

from cluster.scheduling.inventory import GB, Accelerators, Node
from cluster.scheduling.needs import WHOLE, Need
from cluster.scheduling.plan import Plan

BIG, LITTLE = Accelerators("GPU", "H100", 2, 80 * GB), Accelerators("GPU", "L4", 3, 24 * GB)
CHIP = Accelerators("NPU", "Ascend910B", 2, 64 * GB)


@st.composite
def nodes(draw: st.DrawFn, most: int = 3) -> tuple[Node, ...]:
    count = draw(st.integers(1, most))
    return tuple(
        Node(
            f"n{number}",
            draw(st.sampled_from((2, 4, 64))),
            draw(st.sampled_from((40, 500))) * GB,
            draw(st.sampled_from((BIG, BIG, LITTLE, CHIP, None))),
            draw(st.sampled_from(("a", "b"))),
            draw(st.sampled_from(("", "fast"))),
            {"disk": draw(st.sampled_from(("ssd", "none")))},
        )
        for number in range(count)
    )


@st.composite
def needs(draw: st.DrawFn, most: int = 3) -> tuple[Need, ...]:
    kinds = st.sampled_from((("GPU",), ("GPU", "NPU"), ("NPU", "CPU"), ("CPU",)))
    return tuple(
        Need(
            f"m{number}",
            {"bfloat16": (size := draw(st.sampled_from((6, 11, 20, 60)))) * GB, "int8": size * GB // 2},
            "bfloat16",
            degree=draw(st.integers(1, 4)),
            replicas=draw(st.integers(1, 2)),
            kinds=draw(kinds),
            labels=draw(st.sampled_from(({}, {}, {}, {"disk": "ssd"}))),
            shares=draw(st.booleans()),
            cores=draw(st.sampled_from((0, 1, 1.5))),
            host_bytes=draw(st.sampled_from((0, 10))) * GB,
            spread=draw(st.sampled_from(("zone", "node", "none"))),
        )
        for number in range(draw(st.integers(1, most)))
    )


def check(plan: Plan, nodes: Sequence[Node], needs: Sequence[Need]) -> None:
    """No node holds more than it has, no gang leaves its domain, every gang is placed once or refused."""
    named, wanted = {node.name: node for node in nodes}, {need.model: need for need in needs}
    parts: Counter[tuple[str, int]] = Counter()
    cores: Counter[str] = Counter()
    memory: Counter[str] = Counter()
    for key, gang in plan.placed.items():
        need = wanted[gang.model]
        assert key == gang.key
        assert gang.ask.kind in need.kinds
        assert sum(seat.shards for seat in gang.seats) == need.degree
        homes = [named[seat.node] for seat in gang.seats]
        if len(homes) > 1:
            assert len({home.domain for home in homes}) == 1
            assert homes[0].domain
            assert need.degree > max(home.accelerators.count for home in homes)
            assert len({home.name for home in homes}) == len(homes)
        for seat, home in zip(gang.seats, homes, strict=True):
            assert need.labels.items() <= home.labels.items()
            cores[home.name] += round(seat.shards * need.cores * WHOLE) if need.cores else seat.shards * gang.ask.cores
            bytes_each = need.host_bytes + (need.shard_bytes if gang.ask.kind == "CPU" else 0)
            memory[home.name] += seat.shards * bytes_each
            if gang.ask.kind == "CPU":
                assert not seat.devices
                continue
            assert len(set(seat.devices)) == seat.shards
            assert home.accelerators.kind == gang.ask.kind
            for device in seat.devices:
                assert 0 <= device < home.accelerators.count
                share = -(-need.shard_bytes * WHOLE // home.accelerators.memory)
                assert share <= WHOLE
                parts[home.name, device] += share if need.shares and need.degree == 1 else WHOLE
    assert all(count <= WHOLE for count in parts.values())
    assert all(count <= named[name].cores * WHOLE for name, count in cores.items())
    assert all(count <= named[name].memory for name, count in memory.items())
    refused = Counter({each.model: each.replicas for each in plan.refused})
    for need in needs:
        assert sum(model == need.model for model, _ in plan.placed) + refused[need.model] == need.replicas


def possible(nodes: Sequence[Node], needs: Sequence[Need]) -> bool:
    """Whether all gangs fit at once: every choice is tried, with nothing cut short."""
    gangs = [need for need in needs for _ in range(need.replicas)]
    state = [
        ([WHOLE] * (node.accelerators.count if node.accelerators else 0), [node.cores * WHOLE], [node.memory])
        for node in nodes
    ]

    def fits(done: int) -> bool:
        if done == len(gangs):
            return True
        need = gangs[done]
        for taken in _choices(nodes, state, need):
            for place, devices, parts, shards, memory in taken:
                for device in devices:
                    state[place][0][device] -= parts
                state[place][1][0] -= shards * need.cores * WHOLE or shards * (not devices)
                state[place][2][0] -= shards * memory
            within = all(min([*free, cores[0] + 1e-6, memory[0]]) >= 0 for free, cores, memory in state)
            if within and fits(done + 1):
                return True
            for place, devices, parts, shards, memory in taken:
                for device in devices:
                    state[place][0][device] += parts
                state[place][1][0] += shards * need.cores * WHOLE or shards * (not devices)
                state[place][2][0] += shards * memory
        return False

    return fits(0)


Taken = list[tuple[int, list[int], int, int, int]]


def _choices(nodes: Sequence[Node], state: list, need: Need) -> Iterator[Taken]:
    for place, node in enumerate(nodes):
        if not need.labels.items() <= node.labels.items():
            continue
        if "CPU" in need.kinds:
            yield [(place, [], 0, need.degree, need.host_bytes + need.shard_bytes)]
        devices = node.accelerators
        if devices is None or devices.kind not in need.kinds or devices.memory < need.shard_bytes:
            continue
        if need.shares and need.degree == 1:
            share = -(-need.shard_bytes * WHOLE // devices.memory)
            for device in range(devices.count):
                yield [(place, [device], share, 1, need.host_bytes)]
        elif need.degree <= devices.count:
            free = [device for device, parts in enumerate(state[place][0]) if parts == WHOLE]
            if len(free) >= need.degree:
                yield [(place, free[: need.degree], WHOLE, need.degree, need.host_bytes)]
        elif node.domain:
            alike = [
                other
                for other in range(place, len(nodes))
                if (nodes[other].domain, nodes[other].accelerators) == (node.domain, devices)
                and need.labels.items() <= nodes[other].labels.items()
            ]
            yield from _spread(alike, state, need, need.degree)


def _spread(places: Sequence[int], state: list, need: Need, shards: int) -> Iterator[Taken]:
    if not shards:
        yield []
    elif places:
        free = [device for device, parts in enumerate(state[places[0]][0]) if parts == WHOLE]
        for here in range(min(len(free), shards) + 1):
            mine = [(places[0], free[:here], WHOLE, here, need.host_bytes)] if here else []
            for rest in _spread(places[1:], state, need, shards - here):
                yield mine + rest
