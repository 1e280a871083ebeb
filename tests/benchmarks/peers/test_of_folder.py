import pytest

from benchmarks.peers.of_folder import batches


@pytest.mark.parametrize(
    ("requests", "streams", "taken"), [(3, 2, [2, 1]), (4, 2, [2, 2]), (1, 8, [1]), (10, 3, [3, 3, 3, 1])]
)
def test_as_many_requests_as_were_asked_for_the_last_batch_being_smaller(
    requests: int, streams: int, taken: list[int]
) -> None:
    assert batches(requests, streams) == taken
