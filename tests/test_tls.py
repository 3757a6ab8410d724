"""TLS: which files are refused and why, who can talk to whom, and that plain text stays on the machine."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import Authority, authority
from pydantic_settings import BaseSettings
from serving import Server, running_server

from classifier.client import AsyncClient, Client
from classifier.config import Settings
from classifier.connect import Credentials
from classifier.errors import InvalidRequest, InvalidSetting, ServiceFailed
from classifier.serve.listen import listen
from classifier.serve.tls import server_credentials

PROMPT = "What is the capital of Peru?"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The CA that the server and its callers trust."""
    return authority(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A CA that nobody here trusts."""
    return authority(tmp_path_factory.mktemp("theirs"))


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory, ours: Authority) -> Iterator[Server]:
    """A server that asks its callers for certificates."""
    certificate, key = ours.issue("server")
    with running_server(
        tmp_path_factory.mktemp("mutual") / "home",
        tls_certificate=certificate,
        tls_key=key,
        tls_client_ca=ours.certificate,
    ) as server:
        yield server


def settings(**given: object) -> Settings:
    return Settings.model_validate({"home": Path("none"), **given})


def refused(**given: object) -> str:
    with pytest.raises(InvalidSetting) as raised:
        server_credentials(settings(**given))
    return str(raised.value)


def test_without_files_there_is_no_tls() -> None:
    assert server_credentials(settings()) is None


def test_a_half_pair_and_a_client_ca_alone_are_refused(ours: Authority) -> None:
    certificate, key = ours.issue("server")
    assert "only one is set" in refused(tls_certificate=certificate)
    assert "only one is set" in refused(tls_key=key)
    assert "without tls_certificate" in refused(tls_client_ca=ours.certificate)


def test_a_missing_file_is_refused_by_its_setting_and_name(ours: Authority, tmp_path: Path) -> None:
    certificate, key = ours.issue("server")
    none = tmp_path / "none.pem"
    assert f"tls_certificate {none} cannot be read" in refused(tls_certificate=none, tls_key=key)
    assert f"tls_key {none} cannot be read" in refused(tls_certificate=certificate, tls_key=none)
    assert f"tls_client_ca {none}" in refused(tls_certificate=certificate, tls_key=key, tls_client_ca=none)
    assert "cannot be read" in refused(tls_certificate=tmp_path, tls_key=key)


def test_files_that_do_not_fit_together_are_refused(ours: Authority, theirs: Authority) -> None:
    certificate, key = ours.issue("server")
    _, other = theirs.issue("server")
    assert "is not the key of" in refused(tls_certificate=certificate, tls_key=other)
    assert "no certificate" in refused(tls_certificate=key, tls_key=certificate)


def test_an_expired_certificate_and_one_for_clients_are_refused(ours: Authority) -> None:
    certificate, key = ours.issue("old", days=-1)
    assert "has expired: renew it" in refused(tls_certificate=certificate, tls_key=key)
    certificate, key = ours.issue("caller", purpose="client")
    assert "is none for a server" in refused(tls_certificate=certificate, tls_key=key)


def test_a_self_signed_certificate_will_do(ours: Authority) -> None:
    assert server_credentials(settings(tls_certificate=ours.certificate, tls_key=ours.folder / "ca.key")) is not None


def test_garbage_is_refused_without_quoting_it(ours: Authority, tmp_path: Path) -> None:
    certificate, key = ours.issue("server")
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("-----BEGIN CERTIFICATE-----\nsecret\n-----END CERTIFICATE-----\n")
    for message in (
        refused(tls_certificate=garbage, tls_key=key),
        refused(tls_certificate=certificate, tls_key=garbage),
        refused(tls_certificate=certificate, tls_key=key, tls_client_ca=garbage),
    ):
        assert "PEM" in message
        assert "secret" not in message


def test_a_key_with_a_passphrase_is_refused_and_asks_nobody_for_it(ours: Authority, tmp_path: Path) -> None:
    import subprocess

    certificate, key = ours.issue("server")
    locked = tmp_path / "locked.key"
    command = ["openssl", "ec", "-aes128", "-in", str(key), "-out", str(locked), "-passout", "pass:secret"]
    subprocess.run(command, check=True, capture_output=True)
    assert "without a passphrase" in refused(tls_certificate=certificate, tls_key=locked)


def test_a_client_ca_that_is_none_or_has_expired_is_refused(ours: Authority, tmp_path: Path) -> None:
    certificate, key = ours.issue("server")
    leaf, _ = ours.issue("caller", purpose="client")
    pair: dict[str, object] = {"tls_certificate": certificate, "tls_key": key}
    assert "no CA certificate" in refused(**pair, tls_client_ca=leaf)
    old = authority(tmp_path / "old", days=-1)
    assert "has expired" in refused(**pair, tls_client_ca=old.certificate)


class NoServer:
    """Notes what is asked of a server."""

    def __init__(self) -> None:
        self.bound: list[str] = []

    def add_insecure_port(self, address: str) -> int:
        self.bound.append(f"plain {address}")
        return 1

    def add_secure_port(self, address: str, credentials: object) -> int:
        self.bound.append(f"tls {address}")
        return 1


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org"])
def test_beyond_loopback_the_server_refuses_plain_text_unless_it_is_told_otherwise(host: str) -> None:
    server = NoServer()
    with pytest.raises(InvalidSetting, match="STILLWATCH_TLS_CERTIFICATE"):
        listen(server, settings(host=host))  # type: ignore[arg-type]
    assert server.bound == []
    listen(server, settings(host=host, allow_plaintext=True))  # type: ignore[arg-type]
    assert [address.split()[0] for address in server.bound] == ["plain"]


def test_with_tls_the_server_listens_anywhere_and_an_ipv6_address_is_bracketed(ours: Authority) -> None:
    certificate, key = ours.issue("server")
    server = NoServer()
    listen(server, settings(host="::", tls_certificate=certificate, tls_key=key))  # type: ignore[arg-type]
    assert server.bound == ["tls [::]:50551"]


def ask(address: str, credentials: BaseSettings) -> str:
    assert isinstance(credentials, Credentials)
    with Client(address, timeout=10, credentials=credentials) as client:
        return client.classify(PROMPT).provenance.bundle_version


def test_a_caller_with_our_certificate_is_served_blocking_and_async(mutual: Server, ours: Authority) -> None:
    certificate, key = ours.issue("caller", purpose="client")
    credentials = Credentials(ca=ours.certificate, cert=certificate, key=key)
    assert ask(mutual.address, credentials)

    async def ask_async() -> str:
        async with AsyncClient(mutual.address, credentials=credentials) as client:
            return (await client.classify(PROMPT)).provenance.bundle_version

    assert asyncio.run(ask_async())


def test_a_caller_without_a_certificate_with_anothers_or_in_plain_text_is_not(
    mutual: Server, ours: Authority, theirs: Authority
) -> None:
    certificate, key = theirs.issue("caller", purpose="client")
    for credentials in (
        Credentials(),
        Credentials(ca=ours.certificate),
        Credentials(ca=ours.certificate, cert=certificate, key=key),
    ):
        with pytest.raises(ServiceFailed):
            ask(mutual.address, credentials)


def test_a_client_does_not_trust_a_server_of_another_ca(mutual: Server, ours: Authority, theirs: Authority) -> None:
    certificate, key = ours.issue("caller", purpose="client")
    with pytest.raises(ServiceFailed):
        ask(mutual.address, Credentials(ca=theirs.certificate, cert=certificate, key=key))


def test_a_renewed_certificate_is_shown_to_new_connections_without_a_restart(
    tmp_path: Path, ours: Authority, theirs: Authority
) -> None:
    certificate, key = (shutil.copy(path, tmp_path) for path in ours.issue("server"))
    with running_server(tmp_path / "home", tls_certificate=certificate, tls_key=key) as server:
        assert ask(server.address, Credentials(ca=ours.certificate))
        for path, place in zip(theirs.issue("server"), (certificate, key), strict=True):
            shutil.copy(path, place)
        for _ in range(50):  # the files are looked at once a second
            try:
                assert ask(server.address, Credentials(ca=theirs.certificate))
                break
            except ServiceFailed:
                asyncio.run(asyncio.sleep(0.1))
        else:
            pytest.fail("the new certificate was never shown")
        Path(certificate).write_text("broken")
        asyncio.run(asyncio.sleep(1.1))
        assert ask(server.address, Credentials(ca=theirs.certificate)), "the last good pair stays in force"
        server.stop()
        assert "files_refused" in server.log


def test_a_client_never_sends_its_token_in_plain_text_to_another_machine() -> None:
    with pytest.raises(InvalidSetting, match="plain text"):
        Client("example.org:1", credentials=Credentials(token="sw_x"))
    Client("example.org:1", credentials=Credentials(token="sw_x", allow_plaintext=True)).close()
    Client("127.0.0.1:1", credentials=Credentials(token="sw_x")).close()
    Client("example.org:1", credentials=Credentials(token="sw_x", tls=True)).close()


def test_half_a_clients_pair_a_pair_without_tls_and_broken_files_are_refused(ours: Authority, tmp_path: Path) -> None:
    certificate, key = ours.issue("caller", purpose="client")
    (tmp_path / "text.pem").write_text("no PEM")
    for credentials, why in (
        (Credentials(ca=ours.certificate, cert=certificate), "only one is given"),
        (Credentials(cert=certificate, key=key), "needs TLS"),
        (Credentials(ca=tmp_path / "none.pem"), "cannot be read"),
        (Credentials(ca=tmp_path / "text.pem"), "no PEM file"),
        (Credentials(token="two words"), "copy it again"),
    ):
        with pytest.raises(InvalidSetting, match=why):
            Client("127.0.0.1:1", credentials=credentials)


def test_a_port_that_is_taken_is_named(mutual: Server) -> None:
    import grpc

    async def bind() -> None:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        with pytest.raises(InvalidRequest, match=r"cannot listen on 127\.0\.0\.1"):
            listen(server, settings(port=int(mutual.address.rpartition(":")[2])))

    asyncio.run(bind())
