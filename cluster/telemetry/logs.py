"""Log events, one JSON object a line: what happened and its facts, not a sentence.

    log = structlog.get_logger()
    log.info("replica_replaced", model="strata-starter", seconds=4.2)

Knows how a line looks. Knows nothing of what is logged. What goes through the standard library's `logging` comes out
in the same shape, so that a library's warning and ours are read by one program.
"""

import logging
import sys
from typing import TextIO

import structlog

SHARED: tuple[structlog.types.Processor, ...] = (
    structlog.contextvars.merge_contextvars,  # ids that a request carries: structlog.contextvars.bound_contextvars
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
)


def configure(level: str = "info", stream: TextIO | None = None) -> None:
    """Send every event of this process at `level` and above to `stream`, standard error by default.

    The process's own standard error, not what Ray puts in its place in a worker, which costs a system call a piece.
    """
    handler = logging.StreamHandler(stream or sys.__stderr__)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=SHARED,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(ensure_ascii=False, default=repr),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
