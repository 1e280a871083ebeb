"""What the branch `cluster` refuses before anything is started with it."""

from pathlib import Path

import pytest

from cluster.errors import SettingsInvalid
from cluster.layers import settle
from cluster.settings import ClusterSettings


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"host": "evil host"}, "an IP address or a name"),
        ({"host": ""}, "an IP address or a name"),
        ({"host": "1.2.3"}, "an IP address or a name"),
        ({"host": "-a.example"}, "an IP address or a name"),
        ({"state_dir": ""}, "name a folder"),
        ({"state_dir": "  "}, "name a folder"),
        ({"http_port": 8265}, "http_port and dashboard_port are both 8265"),
        ({"http_port": "8000"}, '"8000" is not accepted'),
    ],
)
def test_what_can_never_work_is_refused(values: dict[str, object], says: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        settle(ClusterSettings, values)
    assert says in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0", "localhost", "gpu-1.example.com", "box_free", "a"])
def test_hosts_that_are_hosts(host: str) -> None:
    if "_" in host:
        with pytest.raises(SettingsInvalid):
            settle(ClusterSettings, {"host": host})
    else:
        assert settle(ClusterSettings, {"host": host}).host == host


def test_one_port_serves_both_where_there_is_no_dashboard() -> None:
    settle(ClusterSettings, {"http_port": 8265, "dashboard": False})
    settle(ClusterSettings, {"http_port": 8265, "address": "auto"})  # that cluster's dashboard is where it is


def test_folders_are_absolute() -> None:
    assert settle(ClusterSettings, {"state_dir": "here"}).state == Path.cwd() / "here"
