import pytest

from pipelines.lifecycle.data.dice import Dice, digest


def test_splitmix64_gives_its_published_numbers():
    dice = Dice(1234567)  # the reference sequence of splitmix64
    assert [dice.bits() for _ in range(3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_whole_takes_both_ends_and_nothing_beyond():
    dice = Dice(3)
    assert {dice.whole(-1, 2) for _ in range(200)} == {-1, 0, 1, 2}


def test_a_sample_takes_nothing_twice():
    dice = Dice(4)
    for _ in range(50):
        assert len(set(dice.sample("abcdef", 4))) == 4


@pytest.mark.parametrize(("percent", "expected"), [(0, {False}), (100, {True}), (50, {True, False})])
def test_chance(percent, expected):
    dice = Dice(5)
    assert {dice.chance(percent) for _ in range(100)} == expected


def test_digest_is_the_start_of_sha256():
    assert digest("abc") == 0xBA7816BF  # the example of FIPS 180
