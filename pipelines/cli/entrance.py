"""The registry as a command meets it: opened by the settings, for somebody who may do what the command does."""

import getpass
from pathlib import Path

from actors.registry.permissions import allow
from actors.registry.registry import Registry
from cluster.errors import Unauthenticated
from cluster.security.keys import KeyRing
from cluster.settings import ClusterSettings
from pipelines.cli.config import settle
from pipelines.cli.keys import mine
from pipelines.settings import Settings
from pipelines.versions import registry_of


def entered(file: Path | None, act: str) -> tuple[Settings, Registry, str]:
    """The settings, their registry, and the name of who asks.

    Raises SettingsInvalid, Unauthenticated for a key that is not known, and Forbidden for one that may not do `act`.
    """
    settings = settle(file).settings
    name = who(settings.cluster, act)
    return settings, registry_of(settings), name


def who(cluster: ClusterSettings, act: str) -> str:
    """The name of the key that this command would ask with, if it may do `act`.

    Without a key the account on this machine, which may: whoever can read the registry's folder owns it.
    """
    try:
        key = mine(cluster)
    except Unauthenticated:
        return getpass.getuser()
    principal = KeyRing(cluster.keys_file).verify(key)
    allow(principal, act)
    return principal.name
