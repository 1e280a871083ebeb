"""What the settings file may say of the gateway. Units stand in the names."""

from pydantic import BaseModel, ConfigDict, Field

MIB = 1024 * 1024


class GatewaySettings(BaseModel):
    """What one request may cost before a model sees it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hosts: tuple[str, ...] = Field(
        (), description="names that the Host header may hold besides localhost and IP addresses; '*' takes all"
    )
    body_bytes: int = Field(4 * MIB, ge=1024, description="a longer body is 413")
    body_seconds: float = Field(30.0, gt=0, description="a slower body is 408")
    farewell_seconds: float = Field(
        5.0, gt=0, description="for a refused client to stop sending, and to take the error"
    )
    header_bytes: int = Field(32 * 1024, ge=1024, description="more, all headers together, is 431")
    token_bytes: int = Field(8 * 1024, ge=128, description="a longer Authorization header is 431, unparsed")
    request_seconds: float = Field(600.0, gt=0, description="an answer that takes longer is cut")
    queue_seconds: float | None = Field(
        None,
        ge=0,
        description="a request that would wait longer for its turn is 429 at once; default: half of what answers of "
        "late took, from 0.5 to 5, and less while the queue does not drain",
    )
    replays: int = Field(
        16, ge=0, le=1000, description="a request whose replica is lost goes on at another one so often; 0: it ends"
    )
    hold_seconds: float = Field(
        30.0, ge=0, description="how long a request waits for a replica while its model has none left; then it is 503"
    )
    held_requests: int = Field(256, ge=0, description="of one model; what comes beyond is 503 at once")
    resume_seconds: float = Field(
        60.0,
        ge=0,
        description="how long a stream that was cut may be taken up again, by the same request with Last-Event-ID; 0: "
        "not at all",
    )
    resumable_streams: int = Field(1024, ge=0, description="of those so many are kept, with up to 256 KiB each")
    events_per_second: float = Field(
        1000.0,
        gt=0,
        description="of all streams together; beyond it, tokens of up to 50 ms leave in one event",
    )
    prompts: int = Field(128, ge=1, description="prompts of one completion request, times its n")
    messages: int = Field(4096, ge=1, description="messages of one chat request")
