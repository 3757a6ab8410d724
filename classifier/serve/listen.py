"""Where the server listens, with which credentials, and what it bounds on every connection."""

from typing import Any

import grpc
import structlog

from classifier.address import is_loopback
from classifier.config import Settings
from classifier.connect import MAX_MESSAGE_BYTES
from classifier.errors import InvalidRequest, InvalidSetting
from classifier.serve.tls import server_credentials

_log = structlog.get_logger("stillwatch.listen")


def is_local(settings: Settings) -> bool:
    """Whether the server listens on loopback alone."""
    return is_loopback(settings.host)


def listen(server: grpc.aio.Server, settings: Settings) -> int:
    """Bind the server's port; beyond loopback only with TLS, or where the operator allows plaintext.

    Args:
        server: Not yet started.
        settings: The address and the files of TLS.

    Returns:
        The port.

    Raises:
        InvalidSetting: When the address needs TLS, or a file of it cannot be used.
        InvalidRequest: When the address cannot be listened on.
    """
    host = f"[{settings.host}]" if ":" in settings.host and not settings.host.startswith("[") else settings.host
    address = f"{host}:{settings.port}"
    credentials = server_credentials(settings)
    if credentials is None and not is_local(settings):
        if not settings.allow_plaintext:
            raise InvalidSetting(
                f"{settings.host} is not loopback, so prompts and tokens would cross the network in plain text: set "
                "STILLWATCH_TLS_CERTIFICATE and STILLWATCH_TLS_KEY, or STILLWATCH_ALLOW_PLAINTEXT where something "
                "else encrypts"
            )
        _log.warning("plaintext_allowed", address=address)
    if settings.tokens_file is None and not is_local(settings):
        _log.warning("no_tokens", detail="callers may only classify: set STILLWATCH_TOKENS_FILE")
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError:
        raise InvalidRequest(
            f"cannot listen on {address}: free it, or set STILLWATCH_HOST and STILLWATCH_PORT"
        ) from None


def options(settings: Settings) -> list[tuple[str, Any]]:
    """The channel arguments: sizes, streams, pings, handshakes."""
    return [
        # The limit holds for a message as it comes and as it is inflated; gRPC stops inflating there.
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),  # an answer is bounded by what it holds
        ("grpc.max_concurrent_streams", settings.max_connection_streams),
        ("grpc.max_metadata_size", settings.max_header_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_header_bytes),
        # A client that pings more often than this, three times, is sent away.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.keepalive_permit_without_calls", 1),
        # Peers that went without a word are noticed.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.so_reuseport", 0),
        ("grpc.enable_channelz", int(settings.channelz)),
    ]
