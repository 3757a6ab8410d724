"""Structured logs: one JSON object a line on standard error, never with prompt text."""

import sys

import structlog


def configure_logging() -> None:
    """Log JSON lines with time and level to standard error."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
