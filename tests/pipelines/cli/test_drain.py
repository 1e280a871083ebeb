import pytest

from cluster.errors import InvalidRequest
from pipelines.cli.drain import Node, meant

HEAD = Node("aa11" + "0" * 52, frozenset({"10.0.0.1", "head"}), True)
ONE = Node("aa22" + "0" * 52, frozenset({"10.0.0.2", "one"}), False)
TWO = Node("bb33" + "0" * 52, frozenset({"10.0.0.2", "two"}), False)


@pytest.mark.parametrize("word", ["aa22", "aa220000", ONE.id, "one"])
def test_a_node_is_meant_by_its_id_or_name(word: str) -> None:
    assert meant(word, [HEAD, ONE, TWO]) == ONE


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("cc44", "node: cc44 is not accepted; name one by its id: aa110000, aa220000, bb330000"),
        ("aa", "name one by its id"),
        ("10.0.0.2", "several are called so: aa220000, bb330000"),
        ("head", "it is the head, which holds the gateway"),
    ],
)
def test_what_cannot_be_drained_says_why(word: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        meant(word, [HEAD, ONE, TWO])
