"""Tokens: made, kept as hashes, found, and read again when the file changes."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from classifier.address import is_loopback, peer_host, stays_here
from classifier.errors import InvalidSetting
from classifier.serve.watched import Watched
from classifier.tokens import Scope, Token, digest, new_token, read_tokens, scopes

CLASSIFY = frozenset({Scope.CLASSIFY})


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n\n".join(lines))
    path.chmod(0o600)
    return path


def test_a_new_token_is_found_by_its_hash_and_the_file_never_holds_it(tmp_path: Path) -> None:
    token, lines = new_token("gateway", CLASSIFY, tokens_per_minute=600, requests_per_second=2.5)
    file = write(tmp_path / "tokens.toml", lines)
    assert token not in file.read_text()
    (found,) = read_tokens(file)
    assert (found.name, found.sha256, found.scopes) == ("gateway", digest(token), CLASSIFY)
    assert (found.tokens_per_minute, found.requests_per_second) == (600, 2.5)


def test_two_tokens_are_never_the_same_and_have_256_random_bits() -> None:
    first, second = (new_token("a", CLASSIFY)[0] for _ in range(2))
    assert first != second
    assert len(first) == len("sw_") + 43


@pytest.mark.parametrize("name", ["", "two words", 'quo"te', "new\nline", "a" * 65, "-dash"])
def test_a_name_that_would_not_be_safe_in_the_file_is_refused(name: str) -> None:
    with pytest.raises(InvalidSetting, match="name"):
        new_token(name, CLASSIFY)


def test_an_unknown_scope_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InvalidSetting, match="everything is unknown: use classify, examples:read"):
        scopes(["everything"])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[[tokens]]\nname = 'a'", "tokens.0.sha256"),
        ("[[tokens]]\nname = 'a'\nsha256 = 'sw_mine'\nscopes = ['classify']", "tokens.0.sha256"),
        (f"[[tokens]]\nname = 'a'\nsha256 = '{'0' * 64}'\nscopes = []", "tokens.0.scopes"),
        (f"[[tokens]]\nname = 'a'\nsha256 = '{'0' * 64}'\nscopes = ['root']", "tokens.0.scopes"),
        (f"[[tokens]]\nname = 'a'\nsha256 = '{'0' * 64}'\nscopes = ['admin']\nrole = 1", "tokens.0.role"),
        ("tokens = 1", "tokens"),
        ("[[tokens", "no TOML"),
        ("\udcff", "no TOML"),
    ],
)
def test_a_wrong_file_is_refused_by_its_place_and_without_what_it_holds(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "tokens.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    path.chmod(0o600)
    with pytest.raises(InvalidSetting, match=why) as raised:
        read_tokens(path)
    assert "sw_mine" not in str(raised.value)


def test_a_name_or_a_hash_that_stands_twice_is_refused(tmp_path: Path) -> None:
    first, second = new_token("a", CLASSIFY)[1], new_token("a", CLASSIFY)[1]
    with pytest.raises(InvalidSetting, match="a name twice"):
        read_tokens(write(tmp_path / "tokens.toml", first, second))
    with pytest.raises(InvalidSetting, match="a sha256 twice"):
        read_tokens(write(tmp_path / "tokens.toml", first, first.replace('"a"', '"b"')))


def test_a_file_that_everybody_may_write_or_nobody_can_read_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "tokens.toml", new_token("a", CLASSIFY)[1])
    file.chmod(0o602)
    with pytest.raises(InvalidSetting, match="chmod o-w"):
        read_tokens(file)
    with pytest.raises(InvalidSetting, match="cannot be read"):
        read_tokens(tmp_path / "none.toml")


def test_a_changed_file_is_read_again_and_a_broken_one_leaves_the_last_good_one(tmp_path: Path) -> None:
    now = 0.0
    file = write(tmp_path / "tokens.toml", new_token("a", CLASSIFY)[1])
    watched: Watched[tuple[Token, ...]] = Watched([file], lambda: read_tokens(file), lambda: now)
    write(file, new_token("second", CLASSIFY)[1])
    assert [token.name for token in watched.current()] == ["a"], "it is looked at once a second at most"
    now += 1
    assert [token.name for token in watched.current()] == ["second"]
    with capture_logs() as logs:
        write(file, "[[broken")
        now += 1
        assert [token.name for token in watched.current()] == ["second"]
        now += 1
        watched.current()
    assert [log["event"] for log in logs] == ["files_refused"], "a broken file is named once"
    write(file, "")
    now += 1
    assert watched.current() == (), "every token may be taken back"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "LocalHost"])
def test_what_is_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "", "localhost.example.org", "127.0.0.1.example.org"])
def test_what_is_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    "target",
    [
        "127.0.0.1:1",
        "localhost:50551",
        "[::1]:1",
        "::1",
        "unix:/run/s",
        "dns:///localhost:1",
        "ipv4:127.0.0.1:1",
        "localhost",
    ],
)
def test_which_targets_stay_on_the_machine(target: str) -> None:
    assert stays_here(target)


@pytest.mark.parametrize(
    "target",
    [
        "10.0.0.1:1",
        "example.org:1",
        "dns:///example.org:1",
        "[::2]:1",
        "localhost.example.org:1",
        "dns://127.0.0.1/x.org:1",
    ],
)
def test_which_targets_leave_the_machine(target: str) -> None:
    assert not stays_here(target)


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:10.0.0.1:5000", "10.0.0.1"),
        ("ipv6:%5B2001:db8::1%5D:5000", "2001:0db8:0000:0000"),
        ("ipv6:[2001:db8::ffff]:1", "2001:0db8:0000:0000"),
        ("ipv6:%5Bfe80::1%25eth0%5D:5000", "fe80:0000:0000:0000"),
        ("unix:", "unix"),
        ("unknown", "unknown"),
    ],
)
def test_a_peer_is_its_network_without_the_port(peer: str, host: str) -> None:
    assert peer_host(peer) == host
