import pytest

from cluster import head


@pytest.mark.parametrize(("wanted", "there", "cores"), [(None, 8, 8), (None, 2, 2), (4, 1, 4), (1, 8, 1)])
def test_ray_hands_out_what_is_there_or_what_was_set(wanted: int | None, there: int, cores: int) -> None:
    assert head.cores_of(wanted, there) == (cores, "")


def test_one_core_holds_the_starter_and_says_so() -> None:
    cores, note = head.cores_of(None, 1)
    assert cores == 2
    assert "take turns" in note
