"""The `registry` branch of the settings."""

from pydantic import BaseModel, ConfigDict, Field, field_validator

from cluster.condition import parse
from cluster.errors import InvalidRequest


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

    @field_validator("conditions")
    @classmethod
    def _are_conditions(cls, conditions: tuple[str, ...]) -> tuple[str, ...]:
        for text in conditions:
            try:
                parse(text, "registry.conditions")
            except InvalidRequest as wrong:
                raise ValueError(wrong.remedy) from None
        return conditions
