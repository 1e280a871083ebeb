"""DeepSpeed's collectives between two processes, and what they leave on the machine."""

from actors.models.parallel import Alone


def test_collectives(pair):
    for rank in pair.ask("collect"):
        assert rank["shared_memory"], "ranks of one machine go over shared memory"
        assert rank["left_behind"] == [], "its buffers have no name left that a death could leave behind"


def test_alone_changes_nothing():
    import torch

    row = torch.ones(2, 3)
    assert Alone().all_reduce(row) is row
    assert Alone().all_gather(row) is row
