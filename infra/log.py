"""Logs are events with fields: for people on a terminal, JSON lines otherwise; always on stderr."""

from __future__ import annotations

import logging
import sys

import structlog


def configure(level: str = "info", *, json: bool | None = None, cache: bool = True) -> None:
    """Set structlog up for this process.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        cache: loggers made from here on keep this configuration.
        json: JSON lines; by default whenever stderr is not a terminal.
    """
    as_json = not sys.stderr.isatty() if json is None else json
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            *([structlog.processors.format_exc_info] if as_json else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=cache,
    )
    logging.getLogger("nats").setLevel(logging.CRITICAL)


def get(component: str) -> structlog.typing.FilteringBoundLogger:
    """The logger of a component; its events carry the component's name.

    A program that uses Callboard as a library and has not set structlog up gets warnings, on stderr.
    """
    if not structlog.is_configured():
        configure("warning", cache=False)
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(component=component)
    return logger
