"""Blocks that leave the cache and come back: right whatever moves when, bounded, and only where it pays."""

import errno
from itertools import count
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.engine import LLM, SamplingParams
from actors.engine.blocks import BlockPool
from actors.engine.tier import Tier, places_in
from actors.models.offload import Host, offload
from cluster.errors import SettingsInvalid
from tests.actors.engine.remembering import Checked, Paced, continuation, engine
from tests.actors.engine.test_loop import prompt_of, run, submit

STARTER = Path(__file__).parents[3] / "models" / "starter"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 20), st.integers(0, 6)), min_size=1, max_size=20),
    st.integers(20, 40),
    st.sampled_from([1, 3, 4, 16]),
    st.sampled_from([1, 2, 7, 100]),
    st.sampled_from([0.0, 0.3, 10.0]),
)
def test_any_mix_continues_by_the_rule(
    wanted: list[tuple[int, int, int]], blocks: int, size: int, places: int, tick: float
) -> None:
    """Also where a fetch takes a part of a step's time, or more than it has."""
    ticks = count()
    room = max(blocks, 100 // size + 1)
    made, _ = engine(room, places=places, clock=lambda: next(ticks) * tick, block_tokens=size, gap_stretch=1.5)
    assert made._tier is not None
    if tick:
        made._tier.pays = lambda blocks, tokens: True  # also where none but a test would fetch
    expected: dict[int, list[int]] = {}
    told: dict[int, list[int]] = {}
    for at, (length, more, seed) in enumerate(wanted):
        prompt = prompt_of(seed, length)
        key = made.add(submit(prompt, more, salt=str(seed % 2)))
        expected[key], told[key] = continuation(prompt, more), []
        for _ in range(at % 5):
            for key, delta in made.step():
                told[key] += delta.tokens
    while made.busy:
        for key, delta in made.step():
            told[key] += delta.tokens
    assert told == expected


def _again(places: int, salt: str = "") -> int:
    """Tokens that the second of two equal prompts finds when others have pushed the first out of the cache."""
    made, _ = engine(blocks=16, places=places, running_sequences=2, step_tokens=64)
    prompt = prompt_of(1, 41)
    made.add(submit(prompt, 4))
    run(made)
    for seed in range(2, 6):
        made.add(submit(prompt_of(seed, 50), 4))
        run(made)
    key = made.add(submit(prompt, 4, salt=salt))
    tokens, _ = run(made)[key]
    assert tokens == continuation(prompt, 4)
    return made.load.prefix_hits


def test_what_was_pushed_out_is_fetched_again() -> None:
    assert _again(places=0) == 0
    assert _again(places=100) == 40


def test_a_small_store_keeps_the_latest() -> None:
    assert _again(places=3) == 0


def test_nobody_finds_what_another_tenant_left() -> None:
    assert _again(places=100, salt="another") == 0


def test_a_fault_makes_all_of_it_doubtful() -> None:
    tier = Tier(2)
    assert tier.keep(b"a") is not None
    assert tier.find([b"a"])
    tier.clear()
    assert tier.find([b"a"]) == []
    assert {tier.keep(b"b"), tier.keep(b"c")} == {0, 1}


def test_what_a_plan_reads_no_save_of_it_takes() -> None:
    tier = Tier(2)
    first, second = tier.keep(b"a"), tier.keep(b"b")
    tier.read([b"a"])
    assert tier.keep(b"c") == second
    assert tier.keep(b"d") == second
    tier.read([b"d"])
    assert tier.keep(b"e") is None
    tier.planned()
    assert tier.keep(b"e") == first


def test_a_fetch_is_made_where_it_is_faster() -> None:
    tier = Tier(1)
    assert tier.pays(1, 16), "never measured: tried"
    tier.fetched(10, 0.010)
    tier.computed(1000, 0.1)
    assert tier.pays(4, 64)
    tier.computed(1000, 0.0)
    tier.fetched(1, 1.0)
    assert not tier.pays(4, 64)
    assert not any(tier.pays(4, 64) for _ in range(1000)), "asking changes nothing"
    for _ in range(1000):
        tier.passed()
    assert tier.pays(4, 64), "and it is tried again some day"


def test_what_became_doubtful_is_found_nowhere() -> None:
    tier = Tier(2)
    pool = BlockPool(4, tier)
    blocks = pool.take(2)
    for block, digest in zip(blocks, (b"a", b"b"), strict=True):
        pool.seal(block, digest)
    place = tier.keep(b"a")
    pool.release(blocks[1:])
    pool.forget(blocks)
    assert pool.match([b"a"]) == pool.match([b"b"]) == []
    assert tier.find([b"a"]) == []
    assert tier.keep(b"c") == place
    pool.release(blocks[:1])
    assert pool.free == 4
    assert sorted(pool.take(4)) == [0, 1, 2, 3]


def test_all_bytes_of_a_block_come_back(tmp_path: Path) -> None:
    """More tensors than one system call takes, of several types."""
    torch.manual_seed(0)
    shapes = [((64, 2, 8), torch.bfloat16), ((64, 2), torch.float32), ((64, 3, 5), torch.int8)] * 200
    tensors = [torch.randn(shape).to(dtype) for shape, dtype in shapes]
    before = [tensor.clone() for tensor in tensors]
    for store in (offload(tensors, 16, 3, str(tmp_path)), Host(tensors, 16, 3)):
        assert store.save([(0, 2), (3, 0)]) == ()
        store.load([(2, 1)])
        assert store.save([(2, 1)]) == ()
        store.load([(1, 0), (0, 3)])
        for tensor, was in zip(tensors, before, strict=True):
            assert torch.equal(tensor[16:32], was[:16])
            assert torch.equal(tensor[:16], was[32:48])
            assert torch.equal(tensor[32:], was[32:])
            tensor.copy_(was)
    assert list(tmp_path.iterdir()) == [], "the file has no name"


def test_no_room_and_no_folder_are_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = [torch.zeros(64, 4)]
    with pytest.raises(SettingsInvalid, match="nowhere"):
        offload(tensors, 16, 3, str(tmp_path / "nowhere"))

    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(SettingsInvalid, match="No space left"):
        offload(tensors, 16, 3, str(tmp_path))


def test_places_are_counted_in_whole_blocks() -> None:
    assert places_in(1.0, 1000, 16) == 62_500
    assert places_in(0.0, 1000, 16) == 0


def test_a_real_model_answers_as_without(tmp_path: Path) -> None:
    prompts = [[100 * seed + index for index in range(200)] for seed in range(1, 7)] * 2
    params = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)
    answers = []
    for gigabytes in (0.0, 0.1):
        with LLM(STARTER, dtype="float32", kv_cache_tokens=1024, max_num_seqs=2, kv_offload_gb=gigabytes) as llm:
            found = [llm.generate([prompt], params)[0].outputs[0].token_ids for prompt in prompts]
            answers.append(found)
            hits = llm.engine.load.prefix_hits
    assert answers[0] == answers[1]
    assert hits >= 6 * 190


def _lying_below(blocks: int, **limits: object) -> tuple[Paced, Checked, list[int]]:
    """An engine with a stream under way, and a prompt all of which but its end lies below."""
    made, executor = engine(blocks=blocks, places=200, running_sequences=2, step_tokens=64, **limits)
    prompt = prompt_of(1, 121)
    made.add(submit(prompt, 2))
    run(made)
    for seed in range(2, 5):
        made.add(submit(prompt_of(seed, 120), 2))
        run(made)
    return made, executor, prompt


@pytest.mark.parametrize("seconds", [0.0, 0.4, 1000.0])
def test_blocks_are_fetched_in_what_time_a_step_has(seconds: float) -> None:
    """One of the steps that decode takes as long as the others, however much is to be fetched."""
    made, executor, prompt = _lying_below(blocks=44, gap_stretch=1.5)
    stream = made.add(submit(prompt_of(9, 8), 60))
    told: dict[int, list[int]] = {stream: []}
    for _ in range(8):
        told[stream] += [token for key, delta in made.step() for token in delta.tokens if key == stream]
    tier = made._tier
    assert tier is not None
    for _ in range(100):
        tier.fetched(1, seconds)
    tier.computed(1, 5000.0)
    hits, key = made.load.prefix_hits, made.add(submit(prompt, 4))
    told[key], begun = [], len(executor.plans)
    while made.busy:
        for one, delta in made.step():
            told[one] += delta.tokens
    assert told[key] == continuation(prompt, 4)
    assert told[stream] == continuation(prompt_of(9, 8), 60)
    fetched = [len(plan.loads) for plan in executor.plans[begun:] if plan.loads]
    assert sum(fetched) == 30
    assert made.load.prefix_hits - hits == 120
    decoded = [len(plan.samples) > 0 for plan in executor.plans[begun:] if plan.loads]
    assert all(decoded), "the stream goes on"
    if seconds == 0.0:
        assert fetched == [30]
    elif seconds == 1000.0:
        assert fetched == [1] * 30
    else:
        assert 1 < max(fetched) < 10


def test_a_prompt_that_waits_for_its_blocks_can_be_cancelled() -> None:
    made, _, prompt = _lying_below(blocks=44, gap_stretch=1.5)
    stream = made.add(submit(prompt_of(9, 8), 30))
    for _ in range(8):
        made.step()
    assert made._tier is not None
    made._tier.fetched(1, 1000.0)
    made._tier.computed(1, 5000.0)
    key = made.add(submit(prompt, 4))
    for _ in range(4):
        made.step()
    made.cancel(key)
    again = made.add(submit(prompt, 4))
    tokens = run(made)
    assert tokens[again][0] == continuation(prompt, 4)
    assert tokens[stream][0] == continuation(prompt_of(9, 8), 30)[-len(tokens[stream][0]) :]
    assert made.load.kv_used == 0


def test_what_could_not_be_saved_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails costs what it would have saved, and no request."""
    made, executor, prompt = _lying_below(blocks=40)
    assert _again_hits(made, prompt) == 120

    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("os.pwritev", broken)
    for seed in range(12, 20):
        made.add(submit(prompt_of(seed, 120), 2))
        run(made)
    other = prompt_of(12, 120)
    loaded = sum(len(plan.loads) for plan in executor.plans)
    key = made.add(submit(other, 2))
    assert run(made)[key][0] == continuation(other, 2)
    assert sum(len(plan.loads) for plan in executor.plans) == loaded


def _again_hits(made: Paced, prompt: list[int]) -> int:
    before = made.load.prefix_hits
    key = made.add(submit(prompt, 2))
    assert run(made)[key][0] == continuation(prompt, 2)
    return made.load.prefix_hits - before
