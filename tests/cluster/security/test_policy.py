"""Default deny."""

import pytest

from cluster.errors import Forbidden
from cluster.security.keys import Principal
from cluster.security.policy import ALLOWED, require


def holder(role: str) -> Principal:
    return Principal("0", "somebody", "acme", role)


@pytest.mark.parametrize("role", ALLOWED)
def test_a_role_may_do_what_its_row_says_and_nothing_else(role: str):
    for permission in {one for row in ALLOWED.values() for one in row} | {"keys.issue", "", "*"}:
        if permission in ALLOWED[role]:
            require(holder(role), permission)
        else:
            with pytest.raises(Forbidden, match="somebody"):
                require(holder(role), permission)


@pytest.mark.parametrize("role", ["", "Admin", "admin ", "root", "*"])
def test_an_unknown_role_may_do_nothing(role: str):
    with pytest.raises(Forbidden):
        require(holder(role), "models.read")
