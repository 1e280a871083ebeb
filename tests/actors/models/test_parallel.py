"""DeepSpeed's collectives between two processes, and what they leave on the machine."""

from actors.models.kernels.building import AVX512, processor_features
from actors.models.kernels.interface import available
from actors.models.parallel import Alone


def test_collectives(pair):
    for rank in pair.ask("collect"):
        assert rank["ours"] or not available(), "ranks of one machine go over shared memory of ours"
        # deepspeed's sums of bfloat16 are written in AVX-512, and without it would go over gloo
        assert rank["shared_memory"] == (processor_features() >= AVX512)
        assert rank["left_behind"] == [], "its buffers have no name left that a death could leave behind"


def test_alone_changes_nothing():
    import torch

    row = torch.ones(2, 3)
    assert Alone().all_reduce(row) is row
    assert Alone().all_gather(row) is row
