"""The real client: engine thread, link over a socket, directory and roster, without Ray."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from queue import Queue
from types import SimpleNamespace

import pytest

from actors.directory import Directory, Entry
from actors.engine.plan import Plan, Result
from actors.engine.thread import EngineThread
from actors.gateway_link import Link, LinkStream
from actors.leader_link import LinkServer
from actors.messages import Delta, Load, SamplingParams, Submit
from actors.replicas import Hold, Replicas
from actors.roster import Roster
from actors.wire import Frames, hello_of, pack_frame, unpack_command
from cluster.errors import DeadlineExceeded, NotReady, Overloaded, ReplicaLost, StrataError, Unavailable
from tests.actors.engine.remembering import continuation, engine
from tests.contracts.client import PROMPT, ClientContract, collect, greedy, still, tokens

MODEL = "remembering"


@dataclass
class Leader:
    """One replica's engine and its listening end."""

    thread: EngineThread
    server: LinkServer
    entry: Entry

    def close(self) -> None:
        self.thread.close()
        self.server.close()


async def lead(directory: Directory, name: str, blocks: int = 25_000, **limits: int) -> Leader:
    made, _ = engine(blocks=blocks, **limits)
    server = LinkServer("127.0.0.1", name, await directory.secret())
    thread = EngineThread(made, server.publish, lambda error: None)
    thread.start()
    server.start(thread)
    entry = Entry(MODEL, name, "127.0.0.1", server.port, "node", made.capacity, blocks * 4, 0, (), (), 0.0)
    await directory.announce(entry)
    return Leader(thread, server, entry)


async def until_ready(client: Replicas, count: int = 1) -> None:
    async with asyncio.timeout(20):
        while len(client.loads) < count:
            await asyncio.sleep(0.005)


@pytest.fixture
def directory() -> Directory:
    return Directory()


@pytest.fixture
async def client(directory: Directory) -> AsyncIterator[Replicas]:
    leader = await lead(directory, "one")
    replicas = Replicas(MODEL)
    roster = Roster({MODEL: replicas}, directory.watch)
    roster.start()
    await until_ready(replicas)
    yield replicas
    await roster.close()
    leader.close()


class TestOverALink(ClientContract):
    """The contract that the gateway relies on."""


async def test_tokens_are_the_engine_s_own(client: Replicas) -> None:
    assert tokens(await collect(await client.submit(PROMPT, greedy(), seed=1))) == continuation(PROMPT, 8)


async def test_without_a_replica_it_is_unavailable(directory: Directory) -> None:
    replicas = Replicas(MODEL)
    assert not replicas.ready
    with pytest.raises(NotReady):
        _ = replicas.context_tokens
    with pytest.raises(Unavailable, match="none of its replicas"):
        await replicas.submit(PROMPT, greedy(), seed=1)


async def test_a_request_is_held_until_the_next_replica_is_up(directory: Directory) -> None:
    replicas = Replicas(MODEL, hold=Hold(60.0, 1))
    roster = Roster({MODEL: replicas}, directory.watch)
    roster.start()
    with pytest.raises(Unavailable):  # what it can hold is not known yet
        await replicas.submit(PROMPT, greedy(), seed=1)
    first = await lead(directory, "one")
    await until_ready(replicas)
    context = replicas.context_tokens
    await directory.withdraw("one")
    async with asyncio.timeout(20):
        while replicas.ready:
            await asyncio.sleep(0)
    assert replicas.context_tokens == context
    held = asyncio.create_task(replicas.submit(PROMPT, greedy(), seed=1))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):  # one is the bound
        await replicas.submit(PROMPT, greedy(), seed=1)
    second = await lead(directory, "two")
    assert tokens(await collect(await held)) == continuation(PROMPT, 8)
    await roster.close()
    first.close()
    second.close()


async def abandoned(directory: Directory, hold: Hold) -> tuple[Leader, Replicas]:
    """A model that had one replica and has none; the leader is to be closed."""
    leader = await lead(directory, "one")
    replicas = Replicas(MODEL, hold=hold)
    roster = Roster({MODEL: replicas}, directory.watch)
    roster.start()
    await until_ready(replicas)
    await roster.close()
    replicas.drop("one")
    return leader, replicas


@pytest.mark.parametrize(("deadline", "error"), [(None, Unavailable), (0.01, DeadlineExceeded)])
async def test_what_is_held_in_vain_hears_why(
    directory: Directory, deadline: float | None, error: type[StrataError]
) -> None:
    leader, replicas = await abandoned(directory, Hold(0.05, 9))
    with pytest.raises(error):
        await replicas.submit(PROMPT, greedy(), seed=1, deadline=deadline)
    leader.close()


async def test_nobody_waits_for_a_model_that_was_taken_off(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr("actors.replicas.TAKEN_OFF_SECONDS", 0.0)
    leader, replicas = await abandoned(directory, Hold(60.0, 9))
    answers = iter([False, True])

    async def withdrawn() -> bool:
        return next(answers)

    replicas.withdrawn = withdrawn
    with pytest.raises(Unavailable, match="taken off by a deploy; ask again"):
        await replicas.submit(PROMPT, greedy(), seed=1)
    leader.close()


async def test_a_full_replica_refuses_and_another_takes_it(directory: Directory) -> None:
    leaders = [await lead(directory, name, running_sequences=1, queued_sequences=0) for name in ("one", "two")]
    replicas = Replicas(MODEL)
    roster = Roster({MODEL: replicas}, directory.watch)
    roster.start()
    await until_ready(replicas, 2)
    endless = SamplingParams(temperature=0.0, max_tokens=90_000, ignore_eos=True)
    first, second = [await replicas.submit(PROMPT, endless, seed=1) for _ in range(2)]
    with pytest.raises(Overloaded):
        await replicas.submit(PROMPT, endless, seed=1)
    first.cancel()
    second.cancel()
    await still(replicas)
    await roster.close()
    for leader in leaders:
        leader.close()


async def test_a_leader_that_goes_ends_its_streams_with_a_retryable_error(directory: Directory) -> None:
    leader = await lead(directory, "one")
    replicas = Replicas(MODEL, replays=0)
    roster = Roster({MODEL: replicas}, directory.watch)
    roster.start()
    await until_ready(replicas)
    stream = await replicas.submit(PROMPT, SamplingParams(max_tokens=90_000, ignore_eos=True), seed=1)
    await anext(aiter(stream))
    leader.close()
    with pytest.raises(Unavailable) as caught:
        await collect(stream)
    assert caught.value.retryable
    async with asyncio.timeout(20):
        while replicas.ready:
            await asyncio.sleep(0.005)
    again = await lead(directory, "two")
    await until_ready(replicas)
    assert tokens(await collect(await replicas.submit(PROMPT, greedy(), seed=1))) == continuation(PROMPT, 8)
    await roster.close()
    again.close()


def test_a_gang_that_dies_while_nothing_is_asked_of_it_is_noticed() -> None:
    made, executor = engine()
    noticed: Queue[StrataError] = Queue()
    thread = EngineThread(made, lambda deltas, load: None, noticed.put)
    thread.start()
    executor.lost = ReplicaLost(MODEL, "rank 1 died")
    assert noticed.get(timeout=20) is executor.lost
    thread.close()


async def test_a_gateway_that_goes_takes_its_sequences_along(directory: Directory) -> None:
    leader = await lead(directory, "one")
    link = await Link.connect("one", "127.0.0.1", leader.server.port, await directory.secret())
    watcher = await Link.connect("one", "127.0.0.1", leader.server.port, await directory.secret())
    stream = link.submit(PROMPT, SamplingParams(max_tokens=90_000, ignore_eos=True), seed=1)
    await stream.accepted()
    link.close()
    probe = watcher.submit((1,), greedy(max_tokens=1), seed=1)
    await collect(probe)
    async with asyncio.timeout(20):
        while watcher.load.running or watcher.load.kv_used:
            await asyncio.sleep(0.005)
    leader.close()


@pytest.mark.parametrize("hello", ["wrong", "", "x" * 100_000])
async def test_a_stranger_is_cut_off(directory: Directory, hello: str) -> None:
    leader = await lead(directory, "one")
    link = await Link.connect("one", "127.0.0.1", leader.server.port, hello)
    assert not await link.welcomed()
    with pytest.raises(ReplicaLost):
        link.submit(PROMPT, greedy(), seed=1)
    leader.close()


async def test_a_link_that_means_another_replica_is_cut_off(directory: Directory) -> None:
    leader = await lead(directory, "one")
    link = await Link.connect("two", "127.0.0.1", leader.server.port, await directory.secret())
    assert not await link.welcomed()
    leader.close()


async def test_garbage_on_the_link_closes_it_and_harms_nobody(directory: Directory) -> None:
    leader = await lead(directory, "one")
    secret = await directory.secret()
    for garbage in (b"\x01\x00\x00\x00\xc1", b"\xff\xff\xff\xff", b"\x02\x00\x00\x00\x92\x00"):
        link = await Link.connect("one", "127.0.0.1", leader.server.port, secret)
        assert await link.welcomed()
        link.transport.write(garbage)
        await link.end()
    link = await Link.connect("one", "127.0.0.1", leader.server.port, secret)
    stream = link.submit(PROMPT, greedy(), seed=1)
    await stream.accepted()
    assert tokens(await collect(stream)) == continuation(PROMPT, 8)
    leader.close()


async def test_a_directory_that_forgets_for_a_while_costs_nothing(directory: Directory) -> None:
    leader = await lead(directory, "one")
    replicas = Replicas(MODEL)
    roster = Roster({MODEL: replicas}, directory.watch)
    roster.start()
    await until_ready(replicas)
    stream = await replicas.submit(PROMPT, SamplingParams(max_tokens=90_000, ignore_eos=True), seed=1)
    await directory.withdraw("one")
    async with asyncio.timeout(20):
        while replicas.ready:
            await asyncio.sleep(0.005)
    await anext(aiter(stream))  # what runs there goes on
    await directory.announce(leader.entry)
    await until_ready(replicas)
    assert tokens(await collect(await replicas.submit(PROMPT, greedy(), seed=1))) == continuation(PROMPT, 8)
    stream.cancel()
    await roster.close()
    leader.close()


async def test_a_directory_made_anew_has_a_new_secret_that_leaders_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.roster.ANNOUNCE_SECONDS", 0.01)
    directories = [Directory(), Directory()]
    leader = await lead(directories[0], "one")
    current = [directories[0]]
    replicas = Replicas(MODEL)
    roster = Roster({MODEL: replicas}, lambda revision, seconds: current[0].watch(revision, 0.05))
    roster.start()
    await until_ready(replicas)
    current[0] = directories[1]
    leader.server.know(await directories[1].announce(leader.entry))
    late = Replicas(MODEL)  # a gateway that starts now knows the new secret alone
    second = Roster({MODEL: late}, directories[1].watch)
    second.start()
    await until_ready(late)
    assert tokens(await collect(await late.submit(PROMPT, greedy(), seed=1))) == continuation(PROMPT, 8)
    assert tokens(await collect(await replicas.submit(PROMPT, greedy(), seed=1))) == continuation(PROMPT, 8)
    await roster.close()
    await second.close()
    leader.close()


async def test_a_frozen_leader_is_given_up(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener that takes the connection and says nothing: what SIGSTOP leaves of a leader."""
    monkeypatch.setattr("actors.gateway_link.SILENCE_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        link = await Link.connect("one", "127.0.0.1", mute.getsockname()[1], "secret")
        stream = link.submit(PROMPT, greedy(), seed=1)
        assert not await link.welcomed()
        with pytest.raises(ReplicaLost, match="silent"):
            await stream.accepted()


class Zombie:
    """A leader that makes some tokens, freezes in the middle of an answer, and speaks again when it is woken."""

    TOKENS = 5

    def __init__(self, door: socket.socket) -> None:
        self.frozen, self.woken = threading.Event(), threading.Event()
        self._door = door
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        line, _ = self._door.accept()
        frames, asked = Frames(), []
        with line:
            while not asked:
                for frame in frames.feed(line.recv(1 << 16)):
                    if frame == hello_of("zombie", self.secret):
                        line.sendall(pack_frame([], Load()))
                    else:
                        asked.append(unpack_command(frame))
            (submit,) = asked
            out = tuple(continuation(submit.prompt, self.TOKENS))
            line.sendall(pack_frame([Delta(submit.id, ()), Delta(submit.id, out)], Load()))
            self.frozen.set()
            self.woken.wait()
            with suppress(ConnectionError):
                line.sendall(pack_frame([Delta(submit.id, (7, 7, 7), finish="length")], Load()))

    secret = ""


async def test_what_a_frozen_leader_says_later_is_thrown_away(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is the fence: what is sent over one that was given up has no way to a stream any more."""
    monkeypatch.setattr("actors.gateway_link.SILENCE_SECONDS", 0.3)
    monkeypatch.setattr("actors.leader_link.PULSE_SECONDS", 0.05)
    monkeypatch.setattr(Zombie, "secret", await directory.secret())
    with socket.create_server(("127.0.0.1", 0)) as door:
        zombie = Zombie(door)
        port = door.getsockname()[1]
        await directory.announce(Entry(MODEL, "zombie", "127.0.0.1", port, "node", 3000, 3000, 0, (), (), 0.0))
        replicas = Replicas(MODEL)
        roster = Roster({MODEL: replicas}, directory.watch)
        roster.start()
        await until_ready(replicas)
        stream = await replicas.submit(PROMPT, greedy(max_tokens=2000), seed=1)
        heard: list[Delta] = []

        async def listen() -> None:
            async for delta in stream:
                heard.append(delta)
                if replicas.loads.keys() == {"one"}:
                    zombie.woken.set()  # another goes on by now

        reading = asyncio.create_task(listen())
        await asyncio.to_thread(zombie.frozen.wait)
        leader = await lead(directory, "one")
        await reading
        await asyncio.to_thread(zombie.thread.join)
        assert heard[0].tokens == tuple(continuation(PROMPT, Zombie.TOKENS))
        assert tokens(heard) == continuation(PROMPT, 2000)
        await roster.close()
    await asyncio.sleep(0)  # what the roster hung up on is gone
    leader.close()


async def test_a_leader_whose_engine_hangs_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.leader_link.PULSE_SECONDS", 0.01)
    made, _ = engine()
    go_on, hung = threading.Event(), threading.Event()
    monkeypatch.setattr(made, "add", lambda submit: go_on.wait())
    server = LinkServer("127.0.0.1", "one", "secret", hung.set)
    thread = EngineThread(made, server.publish, lambda error: None)
    thread.start()
    server.start(thread)
    link = await Link.connect("one", "127.0.0.1", server.port, "secret")
    assert await link.welcomed()
    link.submit(PROMPT, greedy(), seed=1)
    assert await asyncio.to_thread(hung.wait, 20)
    go_on.set()
    link.close()
    thread.close()
    server.close()


def test_an_engine_is_hung_only_when_neither_it_nor_its_ranks_move() -> None:
    server = LinkServer("127.0.0.1", "one", "secret")
    moves: list[int | None] = [1, 2, 2, 2, 2, 2, 3, None, None, None, None, None, None, 3, 3, 3, 3, 3, 3]
    told = []
    for each in moves:
        server._engine = SimpleNamespace(moves=each)  # type: ignore[assignment]
        told.append(server._moving())
    assert told == [True] * 18 + [False]


async def test_an_idle_engine_moves_and_one_whose_ranks_compute_has_nothing_to_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("actors.engine.thread.IDLE_LOOK_SECONDS", 0.001)
    made, executor = engine()
    began, go_on = threading.Event(), threading.Event()

    def execute(plan: Plan) -> Result:
        began.set()
        go_on.wait()
        return Result(plan.number, [1], counts=(1,))

    monkeypatch.setattr(executor, "execute", execute)
    thread = EngineThread(made, lambda deltas, load: None, lambda error: None)
    thread.start()
    before = thread.moves
    while thread.moves == before:
        await asyncio.sleep(0)
    thread.post("me", Submit(1, PROMPT, greedy(max_tokens=1), seed=1))
    assert await asyncio.to_thread(began.wait, 20)
    assert thread.moves is None
    go_on.set()
    while thread.moves is None:
        await asyncio.sleep(0)
    thread.close()


async def test_the_silent_are_dropped_from_the_directory() -> None:
    now = [0.0]
    directory = Directory(lambda: now[0])
    entry = Entry(MODEL, "one", "h", 1, "n", 1, 1, 0, (), (), 0.0)
    await directory.announce(entry)
    revision, _, entries = await directory.watch(-1, 1.0)
    assert entries == (entry,)
    now[0] = 11.0
    assert await directory.entries() == ()
    later, _, entries = await directory.watch(revision, 1.0)
    assert entries == ()
    assert later > revision


async def test_what_came_before_a_fault_is_heard_before_it() -> None:
    stream = LinkStream(Link("one"), 1)
    stream.feed(Delta(1, ()))
    stream.feed(Delta(1, (4, 5)))
    stream.feed(Delta(1, (6,), finish="error", error=("StrataError", ("the model's logits are no numbers",))))
    await stream.accepted()
    heard = []
    with pytest.raises(StrataError, match="no numbers"):
        async for delta in stream:
            heard += delta.tokens
    assert heard == [4, 5, 6]
