"""Which permission each act on the registry needs: one table, for the command line, the service and the gateway.

Knows acts and permissions by name. Who holds a permission stands in `cluster.security.policy`.
"""

from cluster.errors import InvalidRequest
from cluster.security.keys import Principal
from cluster.security.policy import require

READ, PUSH, REVIEW, MERGE = "registry.read", "registry.push", "registry.review", "registry.merge"
PROMOTE, MAINTAIN = "registry.promote", "registry.maintain"

NEEDS = {
    "list_models": READ,
    "show_model": READ,
    "list_versions": READ,
    "show_version": READ,
    "diff": READ,
    "checkout": READ,
    "export": READ,
    "search": READ,
    "list_runs": READ,
    "list_aliases": READ,
    "show_alias": READ,
    "alias_history": READ,
    "list_requests": READ,
    "show_request": READ,
    "push": PUSH,
    "branch": PUSH,
    "tag": PUSH,
    "open_request": PUSH,
    "close_request": PUSH,
    "reopen_request": PUSH,
    "evaluate_request": REVIEW,
    "review_request": REVIEW,
    "merge_request": MERGE,  # with the consent that it takes
    "merge": PROMOTE,  # without
    "move_alias": PROMOTE,
    "rollback_alias": PROMOTE,
    "move_stage": PROMOTE,
    "remove": PROMOTE,
    "begin_run": PROMOTE,  # of a pipeline, which may do all of the above
    "cancel_run": PROMOTE,
    "fsck": MAINTAIN,
    "gc": MAINTAIN,
    "reindex": MAINTAIN,
    "webhooks": MAINTAIN,
}


def allow(principal: Principal, act: str) -> None:
    """Raises Forbidden unless the principal may do `act`, and InvalidRequest for one that is not in the table."""
    if act not in NEEDS:
        raise InvalidRequest("act", act, "there is no such act")
    require(principal, NEEDS[act])
