"""How a client reaches a server: TLS, a certificate of its own, a bearer token."""

from pathlib import Path

import grpc
from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from classifier.address import stays_here
from classifier.errors import InvalidSetting

MAX_MESSAGE_BYTES = 64 * 2**20
"""The most that a client takes and a server sends."""
_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
]
Metadata = tuple[tuple[str, str], ...]


class Credentials(BaseSettings):
    """What a client shows and what it trusts: given here, or from the environment (STILLWATCH_CLIENT_...).

    Attributes:
        tls: Speak TLS, and trust the roots that gRPC brings along; not those of the machine.
        ca: Speak TLS, and trust these certificates, PEM, instead.
        cert: The client's own certificate chain, PEM.
        key: Its private key, PEM.
        token: The bearer token.
        allow_plaintext: Send the token without TLS to another machine.
    """

    model_config = SettingsConfigDict(env_prefix="STILLWATCH_CLIENT_", extra="forbid", frozen=True)

    tls: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    token: str | None = None
    allow_plaintext: bool = False


def found_credentials() -> Credentials:
    """The credentials that the environment holds.

    Returns:
        The credentials.

    Raises:
        InvalidSetting: When a variable has a value that is not allowed.
    """
    try:
        return Credentials()
    except ValidationError as error:
        name = "_".join(map(str, error.errors(include_input=False)[0]["loc"])).upper()
        raise InvalidSetting(f"STILLWATCH_CLIENT_{name} is not valid: see docs/settings.md") from None


def open_channel(address: str, credentials: Credentials) -> grpc.Channel:
    """A blocking channel.

    Args:
        address: Host and port of the server.
        credentials: How to reach it.

    Returns:
        The channel; it connects when first used.

    Raises:
        InvalidSetting: When a file cannot be read, or the token would cross the network in plain text.
    """
    secure = _secure(address, credentials)
    if secure is None:
        return grpc.insecure_channel(address, _OPTIONS)
    return grpc.secure_channel(address, secure, _OPTIONS)


def open_async_channel(address: str, credentials: Credentials) -> grpc.aio.Channel:
    """As open_channel, for asyncio."""
    secure = _secure(address, credentials)
    if secure is None:
        return grpc.aio.insecure_channel(address, _OPTIONS)
    return grpc.aio.secure_channel(address, secure, _OPTIONS)


def metadata_of(credentials: Credentials) -> Metadata:
    """What every call brings along: the token, if there is one.

    Args:
        credentials: May hold the token.

    Returns:
        gRPC metadata.

    Raises:
        InvalidSetting: When the token has characters that no token has.
    """
    if not credentials.token:
        return ()
    if not (credentials.token.isascii() and credentials.token.isprintable()) or " " in credentials.token:
        raise InvalidSetting("the token holds characters that no token has: copy it again, without white space")
    return (("authorization", f"Bearer {credentials.token}"),)


def _secure(address: str, credentials: Credentials) -> grpc.ChannelCredentials | None:
    if (credentials.cert is None) != (credentials.key is None):
        raise InvalidSetting("of the client's certificate and key only one is given: give --cert and --key")
    if not credentials.tls and credentials.ca is None:
        if credentials.cert is not None:
            raise InvalidSetting(
                "a client certificate needs TLS: give --ca, or --tls to trust the roots that gRPC brings along"
            )
        if credentials.token and not stays_here(address) and not credentials.allow_plaintext:
            raise InvalidSetting(f"the token would cross the network to {address} in plain text: give --ca or --tls")
        return None
    ca, key, cert = (_read(path) for path in (credentials.ca, credentials.key, credentials.cert))
    return grpc.ssl_channel_credentials(ca, key, cert)


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        data = path.expanduser().read_bytes()
    except OSError as error:
        raise InvalidSetting(f"{path} cannot be read ({error.strerror}): check its place and rights") from None
    if b"-----BEGIN " not in data:
        raise InvalidSetting(f"{path} is no PEM file: give a PEM file")
    return data
