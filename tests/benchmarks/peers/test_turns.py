from benchmarks.peers import turns
from benchmarks.peers.turns import Side, alternate, equal, first_tokens, ratios
from benchmarks.peers.workload import counted


class Fake:
    """An engine that remembers what it was asked and takes a second for each thing."""

    def __init__(self, diary: list, name: str, seconds: float) -> None:
        self.diary, self.name, self.seconds = diary, name, seconds

    def generate(self, prompts, new_tokens, limit):
        self.diary.append((self.name, [tuple(prompt) for prompt in prompts], new_tokens))
        return [[prompt[0]] * new_tokens for prompt in prompts], self.seconds


def sides(diary: list) -> list[Side]:
    return [Side("ours", Fake(diary, "ours", 1.0), 0, {}), Side("theirs", Fake(diary, "theirs", 2.0), 0, {})]


def test_both_get_the_same_prompts_and_each_is_first_once() -> None:
    diary: list = []
    taken = alternate(sides(diary), ("prefill", "b8"), 1, 0, lambda _: True, lambda _: None)
    found = taken.samples
    assert (taken.again, taken.unsteady) == (0, 0)
    assert [name for name, *_ in diary] == ["ours", "theirs"] * 2 + ["theirs", "ours"] * 2
    for first, second in zip(diary[::2], diary[1::2], strict=True):
        assert first[1:] == second[1:]
    assert len({str(prompts) for _, prompts, _ in diary}) == 4, "no prompt comes twice: a prefix cache finds nothing"
    assert found["ours"] == {"prefill": [512.0, 512.0], "b8": [1024.0, 1024.0]}
    assert ratios(found["ours"], found["theirs"]) == {"prefill": 2.0, "b8": 2.0}


def test_a_pair_from_an_unsteady_moment_is_taken_again() -> None:
    diary: list = []
    steady = iter([False, True, False, True, True, True, True])  # not begun; begun and spoilt; good; good
    taken = alternate(sides(diary), ("b1",), 1, 0, lambda _: next(steady), lambda _: None)
    assert taken.again == 2
    assert taken.unsteady == 0
    assert len(diary) == 6
    assert taken.samples["ours"] == {"b1": [128.0, 128.0]}


def test_where_it_is_never_steady_the_last_pair_is_kept_and_counted() -> None:
    taken = alternate(sides([]), ("b1",), 1, 0, lambda _: False, lambda _: None)
    assert taken.unsteady == 2
    assert len(taken.samples["theirs"]["b1"]) == 2


def test_no_prompt_of_warming_comes_twice() -> None:
    diary: list = []
    turns.warm(sides(diary)[0], ("b32",))
    begun = [prompt[:16] for _, prompts, _ in diary for prompt in prompts]
    assert len(begun) == len(set(begun)) == 42


def test_warming_is_no_larger_than_what_is_measured() -> None:
    diary: list = []
    turns.warm(sides(diary)[0], ("prefill", "b1"))
    assert {len(prompts) for _, prompts, _ in diary} == {1}
    warmed = {prompt[:16] for _, prompts, _ in diary for prompt in prompts}
    alternate(sides(diary), ("prefill", "b1", "b8"), 2, 0, lambda _: True, lambda _: None)
    assert not warmed & {prompt[:16] for _, prompts, _ in diary[2:] for prompt in prompts}, "no prefix is found again"


def test_first_tokens_are_of_the_same_prompts_for_all() -> None:
    ours, theirs = sides([])
    assert first_tokens(ours) == first_tokens(theirs)
    assert equal([1, 2, 3], [1, 5, 3]) == 2


def test_prefill_counts_what_is_read_and_the_rest_what_is_made() -> None:
    assert (counted("prefill"), counted("b1"), counted("b32")) == (512, 128, 4096)
