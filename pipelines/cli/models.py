"""`strata models`: what the gateway serves."""

from pathlib import Path

from pipelines.cli import show
from pipelines.cli.asking import gateway
from pipelines.driver import checked


def run(file: Path | None, url: str | None, *, as_json: bool) -> None:
    """List the models."""
    with gateway(file, url) as strata:
        strata.models()  # says in one line what is wrong if nobody answers
        cards = checked(strata.http.get("/v1/models"))["data"]
    if as_json:
        show.document(cards)
    else:
        show.table(("model", "context tokens"), [(card["id"], card.get("max_model_len", "starting")) for card in cards])
