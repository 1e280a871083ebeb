"""The `registry` branch of the settings."""

from pydantic import BaseModel, ConfigDict, Field


class RegistrySettings(BaseModel):
    """Where versions of models are kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str | None = Field(None, description="history and refs; by default `registry` in cluster.state_dir")
    store: str | None = Field(
        None, min_length=1, description="content: a folder, or a URL that fsspec opens such as s3://bucket/models; "
        "by default `content` in the folder"
    )  # fmt: skip
