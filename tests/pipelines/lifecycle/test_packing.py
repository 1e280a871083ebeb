import torch

from pipelines.lifecycle.packing import encode, pack, step_seed


def test_a_step_is_a_function_of_its_seed(tokenizer):
    one, same, other = (pack(tokenizer, seed, 4, 128) for seed in (1, 1, 2))
    assert torch.equal(one.tokens, same.tokens)
    assert torch.equal(one.weights, same.weights)
    assert not torch.equal(one.tokens, other.tokens)


def test_seeds_differ_by_step_and_rank():
    assert len({step_seed(7, step, rank) for step in range(500) for rank in range(4)}) == 2000


def test_rows_are_nearly_full_and_answers_are_found_in_them(tokenizer):
    batch = pack(tokenizer, 3, 8, 256)
    assert (batch.segments >= 0).float().mean() > 0.85
    counted = batch.weights > 0
    flat = batch.tokens.flatten()
    assert torch.equal(flat[batch.places[counted] + 1], batch.targets[counted])
    segments = batch.segments.flatten()
    assert torch.equal(segments[batch.places[counted]], segments[batch.places[counted] + 1])


def test_only_answers_weigh_and_each_answer_by_the_root_of_its_length(tokenizer):
    piece = encode(tokenizer, [("question", False), ("1234<|im_end|>", True)])
    asked = len(tokenizer.encode("question").ids)
    assert piece.weights[:asked] == [0.0] * asked
    assert piece.weights[asked:] == [5**-0.5] * 5


def test_long_rows_hold_conversations_of_many_turns(tokenizer):
    batch = pack(tokenizer, 5, 2, 1024)
    longest = torch.bincount(batch.segments[batch.segments >= 0]).max()
    assert longest > 400
