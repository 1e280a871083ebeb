"""What the settings file may say of the machines, and where what Strata keeps there lies.

Knows the branch `cluster`. Knows nothing of where a value comes from: that is `cluster.layers`.
"""

import hashlib
import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")  # RFC 1123, section 2.1


AT_START = frozenset(
    {
        "host",
        "proxies",
        "num_cpus",
        "num_gpus",
        "object_store_megabytes",
        "dashboard",
        "dashboard_port",
        "head_seconds",
        "stall_seconds",
    }
)  # what a local cluster reads as it starts, and no deploy can change; of `http_port` a deploy says so itself


def _address(text: str) -> str:
    if text in ("local", "auto") or text.startswith("ray://"):
        return text
    host, _, port = text.rpartition(":")
    if host and port.isdigit() and 0 < int(port) < 65536:
        return text
    raise ValueError("an address is local, auto, HOST:PORT or ray://HOST:PORT")


def _host(text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        if not _NAME.fullmatch(text) or text.rpartition(".")[2].isdigit():
            raise ValueError("a host is an IP address or a name, such as 127.0.0.1 or localhost") from None
    return text


class ClusterSettings(BaseModel):
    """Where Strata runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: Annotated[str, AfterValidator(_address)] = Field(
        "local",
        description="local: a Ray of our own on this machine; auto: the one that this node belongs to; HOST:PORT; ray://HOST:PORT",
    )
    host: Annotated[str, AfterValidator(_host)] = Field(
        "127.0.0.1", description="where HTTP is answered; 0.0.0.0 for all interfaces"
    )
    http_port: int = Field(8000, ge=1, le=65535, description="port of the gateway")
    proxies: Literal["every_node", "head"] = Field("every_node", description="which nodes answer HTTP")
    state_dir: Path = Field(Path("~/.strata"), description="keys, tokens and the record of what runs; 0700")
    num_cpus: int | None = Field(None, ge=1, description="cores that a local Ray may hand out; default: all")
    num_gpus: int | None = Field(None, ge=0, description="GPUs that a local Ray may hand out; default: all")
    object_store_megabytes: int = Field(256, ge=80, description="shared memory of a local Ray")
    spare_nodes: int = Field(
        0, ge=0, description="nodes of each type that may be lost and leave room for all gangs; a deploy says if not"
    )
    dashboard: bool = Field(True, description="Ray's dashboard, which `ray job submit` needs; on loopback")
    dashboard_port: int = Field(8265, ge=1, le=65535, description="the next free one is taken if it is not")
    ready_seconds: float = Field(600.0, gt=0, description="how long `up` waits for the first token")
    head_seconds: float = Field(15.0, gt=0, description="a request whose headers take longer is cut")
    stall_seconds: float = Field(60.0, gt=0, description="a client that neither sends nor reads for so long is cut")
    drain_seconds: float = Field(20.0, ge=0, description="how long running answers may take when Strata stops")

    @field_validator("state_dir", mode="before")
    @classmethod
    def _somewhere(cls, folder: object) -> object:
        if isinstance(folder, str) and not folder.strip():  # it would mean the folder that the command runs in
            raise ValueError("name a folder, such as ~/.strata")
        return folder

    @model_validator(mode="after")
    def _ports_differ(self) -> "ClusterSettings":
        if self.address == "local" and self.dashboard and self.http_port == self.dashboard_port:
            raise ValueError(f"http_port and dashboard_port are both {self.http_port}; give each its own")
        return self

    @property
    def at_start(self) -> dict[str, object]:
        """What of it only the start of a local cluster reads, as JSON has it."""
        return self.model_dump(mode="json", include=set(AT_START))

    @property
    def state(self) -> Path:
        """The state folder as an absolute path."""
        return self.state_dir.expanduser().absolute()

    @property
    def keys_file(self) -> Path:
        """The API keys, hashed."""
        return self.state / "keys.json"

    @property
    def operator_key_file(self) -> Path:
        """The key by which this machine's owner uses the CLI, in clear, 0600."""
        return self.state / "operator.key"

    @property
    def run_dir(self) -> Path:
        """Sockets and sessions of the local Ray that belongs to this state folder.

        Not inside the state folder: HAProxy takes a socket's path of at most 97 bytes, of which Ray fills 75.
        """
        mark = hashlib.sha256(f"{os.getuid()} {self.state}".encode("utf-8", "surrogateescape")).hexdigest()[:8]
        return Path("/tmp") / f"strata-{mark}"  # noqa: S108 - made 0700 and checked to be ours; TMPDIR may be long

    @property
    def loopback(self) -> bool:
        """Whether HTTP is answered on this machine alone."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")

    @property
    def url(self) -> str:
        """Where a client on this machine finds the gateway."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104 - compared, not bound
        return f"http://{f'[{host}]' if ':' in host else host}:{self.http_port}"
