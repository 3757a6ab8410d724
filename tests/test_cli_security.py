"""Tokens and credentials on the command line."""

from pathlib import Path
from typing import Any

from certificates import authority
from serving import running_server
from test_cli import error_of, run

from classifier.tokens import read_tokens


def test_a_token_is_made_used_and_named_with_tls_by_options_and_by_variables(tmp_path: Path) -> None:
    made = run(tmp_path, "tokens", "new", "gateway", "--scope", "classify", "--requests-per-second", "50")
    assert made.code == 0
    token = made.err.strip()
    assert token not in made.out, "the lines may be redirected into the file"
    file = tmp_path / "tokens.toml"
    file.write_text(made.out)
    assert [found.name for found in read_tokens(file)] == ["gateway"]

    ours = authority(tmp_path / "ca")
    certificate, key = ours.issue("server")
    caller, secret = ours.issue("caller", purpose="client")
    with running_server(
        tmp_path / "home",
        tokens_file=file,
        tls_certificate=certificate,
        tls_key=key,
        tls_client_ca=ours.certificate,
    ) as server:
        ask = ("score", "How do I sort a list?", "--json", "--server", server.address)
        tls = ("--ca", str(ours.certificate), "--cert", str(caller), "--key", str(secret))
        assert run(tmp_path, *ask, *tls, "--token", token).code == 0
        variables: dict[str, Any] = {
            "STILLWATCH_CLIENT_CA": str(ours.certificate),
            "STILLWATCH_CLIENT_CERT": str(caller),
            "STILLWATCH_CLIENT_KEY": str(secret),
            "STILLWATCH_CLIENT_TOKEN": token,
        }
        assert run(tmp_path, *ask, **variables).code == 0
        assert "the token is not known" in error_of(run(tmp_path, *ask, "--token", "sw_wrong", **variables))
        assert "brings no token" in error_of(run(tmp_path, *ask, *tls))
        denied = run(tmp_path, "examples", "list", "--server", server.address, **variables)
        assert "has not the scope examples:read" in error_of(denied)


def test_what_is_not_allowed_is_one_line_of_error(tmp_path: Path) -> None:
    ran = run(tmp_path, "tokens", "new", "a", "--scope", "all")
    assert "the scope all is unknown" in error_of(ran)
    ran = run(tmp_path, "tokens", "new", "two words", "--scope", "classify")
    assert "name is not allowed" in error_of(ran)
    ran = run(tmp_path, "score", "x", "--server", "example.org:1", "--token", "sw_x")
    assert "in plain text" in error_of(ran)
    ran = run(tmp_path, "score", "x", "--server", "127.0.0.1:1", STILLWATCH_CLIENT_TLS="perhaps")
    assert "STILLWATCH_CLIENT_TLS is not valid" in error_of(ran)
