"""The server's certificates: tried before they are used, and read again when their files change."""

import os
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog

from classifier.config import Settings
from classifier.errors import InvalidSetting
from classifier.serve.watched import Watched

_MAX_FILE_BYTES = 2**20
_EXPIRED, _NOT_YET_VALID = 10, 9
_log = structlog.get_logger("stillwatch.tls")


@dataclass(frozen=True, slots=True)
class _Identity:
    """PEM texts that fit together.

    Attributes:
        key: The private key.
        chain: The certificate and its intermediates.
        client_ca: Who signs callers' certificates; None asks them for none.
        expires: When the certificate ends, as OpenSSL writes it.
    """

    key: bytes
    chain: bytes
    client_ca: bytes | None
    expires: str


def server_credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """The credentials that the settings name.

    Args:
        settings: Paths of certificate, key and client CA.

    Returns:
        Credentials whose files are looked at on new connections, once a second at most; None without TLS.

    Raises:
        InvalidSetting: When a file is missing, unreadable or expired, or the files do not fit together.
    """
    certificate, key, client_ca = settings.tls_certificate, settings.tls_key, settings.tls_client_ca
    if certificate is None and key is None:
        if client_ca is not None:
            raise InvalidSetting("tls_client_ca is set without tls_certificate and tls_key: set all three")
        return None
    if certificate is None or key is None:
        raise InvalidSetting("of tls_certificate and tls_key only one is set: set both")
    paths = [path.expanduser() for path in (certificate, key, client_ca) if path is not None]
    watched = Watched(paths, lambda: _identity(*paths))
    given = watched.current()
    _log.info("tls", certificate_expires=given.expires, client_certificates=given.client_ca is not None)

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        found = watched.current()
        if found is given:
            return None
        given = found
        return _configuration(found)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(given),
        changed,  # type: ignore[arg-type]  # None says that nothing changed, which the stub does not know
        client_ca is not None,
    )


def _configuration(identity: _Identity) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(identity.key, identity.chain)], identity.client_ca)


def _identity(certificate: Path, key: Path, client_ca: Path | None = None) -> _Identity:
    chain, secret = _read("tls_certificate", certificate), _read("tls_key", key)
    authorities = None if client_ca is None else _read("tls_client_ca", client_ca)
    expires = _tried(certificate, chain, key, secret)
    if client_ca is not None and authorities is not None:
        _check_authorities(client_ca, authorities)
    return _Identity(secret, chain, authorities, expires)


def _read(name: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidSetting(f"{name} {path} cannot be read ({error.strerror}): check its place and rights") from None
    if len(data) > _MAX_FILE_BYTES:
        raise InvalidSetting(f"{name} {path} is over {_MAX_FILE_BYTES} bytes: name a PEM file")
    return data


def _tried(certificate: Path, chain: bytes, key: Path, secret: bytes) -> str:
    """Shake hands in memory with the very bytes that will be used.

    Args:
        certificate: Its path, for the message.
        chain: Its contents.
        key: The key's path.
        secret: The key's contents.

    Returns:
        When the certificate expires.

    Raises:
        InvalidSetting: When no client could connect.
    """
    if b"-----BEGIN CERTIFICATE-----" not in chain:
        raise InvalidSetting(f"tls_certificate {certificate} holds no certificate: name a PEM file")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        with _in_memory(chain) as chain_file, _in_memory(secret) as key_file:
            serving.load_cert_chain(chain_file, key_file, password=_no_passphrase)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise InvalidSetting(
                f"tls_key {key} is not the key of tls_certificate {certificate}: name the pair"
            ) from None
        raise InvalidSetting(
            f"tls_certificate {certificate} or tls_key {key} is no PEM file that can be read ({error.reason}): "
            "name PEM files, the key without a passphrase"
        ) from None
    calling = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    calling.check_hostname = False
    calling.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    calling.load_verify_locations(cadata=chain.decode(errors="ignore"))
    try:
        return _shake_hands(serving, calling)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code == _EXPIRED:
            why = "has expired: renew it"
        elif error.verify_code == _NOT_YET_VALID:
            why = "is not valid yet: check the clock"
        else:
            why = f"is none for a server ({error.verify_message}): have another one issued"
        raise InvalidSetting(f"tls_certificate {certificate} {why}") from None


def _shake_hands(serving: ssl.SSLContext, calling: ssl.SSLContext) -> str:
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = serving.wrap_bio(up, down, server_side=True)
    client = calling.wrap_bio(down, up)
    for end in (client, server, client, server):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    found = client.getpeercert()
    return str(found.get("notAfter", "")) if found else ""


def _check_authorities(path: Path, data: bytes) -> None:
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        trusting.load_verify_locations(cadata=data.decode(errors="ignore"))
    except (ssl.SSLError, ValueError):
        raise InvalidSetting(f"tls_client_ca {path} holds no certificate: name a PEM file of CA certificates") from None
    ends = [ssl.cert_time_to_seconds(str(found["notAfter"])) for found in trusting.get_ca_certs()]
    if not ends:
        raise InvalidSetting(f"tls_client_ca {path} holds no CA certificate: name the CA, not the caller's certificate")
    if max(ends) < time.time():
        raise InvalidSetting(f"tls_client_ca {path} has expired: renew it")


def _no_passphrase() -> str:
    return ""


@contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """A path of bytes that never touch a disk; OpenSSL reads files only."""
    descriptor = os.memfd_create("stillwatch-tls")
    try:
        os.write(descriptor, data)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
