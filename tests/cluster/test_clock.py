import pytest

from cluster.clock import SetClock, SystemClock


def test_a_set_clock_moves_only_when_told() -> None:
    clock = SetClock(5.0)
    assert clock.now() == clock.monotonic() == 5.0
    clock.advance(2.5)
    assert clock.now() == 7.5
    with pytest.raises(ValueError, match="back"):
        clock.advance(-1)


def test_the_system_clock_does_not_go_back() -> None:
    clock = SystemClock()
    assert clock.monotonic() <= clock.monotonic()
    assert clock.now() > 1_700_000_000
