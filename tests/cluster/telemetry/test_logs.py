import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from cluster.telemetry import logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    written = io.StringIO()
    logs.configure("info", written)
    yield written
    structlog.reset_defaults()
    root.handlers[:], root.level = before


def events(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_line_with_its_facts(stream: io.StringIO) -> None:
    structlog.get_logger("strata.test").info("replica_replaced", model="模型", seconds=4.5, thing=object)
    (event,) = events(stream)
    assert event["event"] == "replica_replaced"
    assert (event["level"], event["logger"], event["model"], event["seconds"]) == ("info", "strata.test", "模型", 4.5)
    assert event["timestamp"].endswith("Z")


def test_ids_come_from_the_context(stream: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(request="r1"):
        structlog.get_logger().info("inside")
    structlog.get_logger().info("outside")
    inside, outside = events(stream)
    assert inside["request"] == "r1"
    assert "request" not in outside


def test_what_libraries_log_has_the_same_shape(stream: io.StringIO) -> None:
    logging.getLogger("some.library").warning("it broke\ntwice", extra={"tries": 3})
    logging.getLogger("some.library").debug("not now")
    (event,) = events(stream)
    assert (event["event"], event["level"], event["tries"]) == ("it broke\ntwice", "warning", 3)


def test_an_exception_stays_on_its_line(stream: io.StringIO) -> None:
    try:
        raise ValueError("bad")
    except ValueError:
        structlog.get_logger().exception("failed")
    (event,) = events(stream)
    assert "ValueError: bad" in event["exception"]
