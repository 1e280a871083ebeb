"""Every act has a permission that somebody holds, and nobody else gets in."""

import pytest

from actors.registry.permissions import NEEDS, allow
from actors.registry.service import ACTS
from cluster.errors import Forbidden, InvalidRequest
from cluster.security.keys import Principal
from cluster.security.policy import ALLOWED


def holder(role):
    return Principal("0", "bob", "acme", role)


def test_every_act_of_the_service_is_in_the_table():
    assert set(ACTS) <= set(NEEDS)
    assert set(NEEDS.values()) <= ALLOWED["admin"]


@pytest.mark.parametrize("act", NEEDS)
def test_who_may(act):
    for role, held in ALLOWED.items():
        if NEEDS[act] in held:
            allow(holder(role), act)
        else:
            with pytest.raises(Forbidden, match=f"bob lacks the permission {NEEDS[act]}"):
                allow(holder(role), act)
    with pytest.raises(Forbidden):
        allow(holder("monitor"), act)


def test_an_act_that_is_none_is_refused_whoever_asks():
    for act in ("", "drop", "__init__", "ask"):
        with pytest.raises(InvalidRequest, match="no such act"):
            allow(holder("admin"), act)
