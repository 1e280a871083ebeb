"""The `registry` branch of the settings."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cluster.condition import parse
from cluster.errors import InvalidRequest
from cluster.layers import refused

KINDS = (
    "version.created", "branch.created", "tag.created", "alias.moved", "stage.moved", "merge_request.opened",
    "merge_request.reviewed", "merge_request.evaluated", "merge_request.merged", "merge_request.closed",
    "merge_request.reopened",
)  # fmt: skip


class WebhookSettings(BaseModel):
    """Who is told what happens, and how it knows that it was told by this registry."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(min_length=1, max_length=2000, description="http:// or https://; redirects are not followed")
    events: tuple[str, ...] = Field((), description="such as merge_request.merged or alias.*; default: all")
    secret_env: str | None = Field(
        None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="the variable with the secret where it is deployed"
    )
    secret_file: str | None = Field(None, min_length=1, description="a file with the secret, on the head")

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname or "", parts.port
        except ValueError:
            raise ValueError("this is no URL; write https://HOST/PATH") from None
        if parts.scheme not in ("http", "https") or not host:
            raise ValueError("write http:// or https:// and a host")
        if parts.username is not None or parts.password is not None or parts.fragment:
            raise ValueError("leave user, password and fragment out: events are signed")
        try:
            inside = ip_address(host).is_link_local or ip_address(host).is_multicast
        except ValueError:
            inside = False
        if inside:
            raise ValueError("this address is the machine's own network's, where no receiver is")
        return url

    @field_validator("events")
    @classmethod
    def _there_are(cls, events: tuple[str, ...]) -> tuple[str, ...]:
        groups = sorted({f"{kind.partition('.')[0]}.*" for kind in KINDS})
        for event in events:
            if event not in (*KINDS, *groups, "*"):
                raise ValueError(f"there is no event {event}; there is {', '.join((*groups, *KINDS))}")
        return events

    @model_validator(mode="after")
    def _has_one_secret(self) -> "WebhookSettings":
        if (self.secret_env is None) == (self.secret_file is None):
            remedy = "give secret_env or secret_file: whoever hears an event has to know whose it is"
            raise refused("secret_env", self.secret_env, remedy)
        return self


class RegistrySettings(BaseModel):
    """Where versions of models are kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str | None = Field(None, description="history and refs; by default `registry` in cluster.state_dir")
    approvals: int = Field(
        1, ge=0, le=100, description="how many have to approve a merge request, its opener not counted"
    )
    conditions: tuple[str, ...] = Field(
        (), description="what a version's metrics have to meet to be merged: 'eval.exact_match >= baseline - 0.02'"
    )
    store: str | None = Field(
        None, min_length=1, description="content: a folder, or a URL that fsspec opens such as s3://bucket/models; "
        "by default `content` in the folder"
    )  # fmt: skip

    metadata: str | None = Field(
        None, min_length=1, description="metadata for searches: sqlite:///FILE or postgresql://...; "
        "by default a SQLite file in the folder"
    )  # fmt: skip
    cache: str | None = Field(
        None, min_length=1, description="on every machine, where versions that are served are copied to; by default "
        "`versions` in cluster.state_dir"
    )  # fmt: skip

    cache_gb: float | None = Field(
        None, ge=0, description="beyond it the copies go that were wanted longest ago; default: all stay"
    )

    webhooks: tuple[WebhookSettings, ...] = Field((), description="who is told what happens to models")

    @field_validator("webhooks")
    @classmethod
    def _addresses_differ(cls, webhooks: tuple[WebhookSettings, ...]) -> tuple[WebhookSettings, ...]:
        if len({hook.url for hook in webhooks}) != len(webhooks):
            raise ValueError("two webhooks have the same url; write both their events in one")
        return webhooks

    @field_validator("conditions")
    @classmethod
    def _are_conditions(cls, conditions: tuple[str, ...]) -> tuple[str, ...]:
        for text in conditions:
            try:
                parse(text, "registry.conditions")
            except InvalidRequest as wrong:
                raise ValueError(wrong.remedy) from None
        return conditions
