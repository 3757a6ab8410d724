"""Bearer tokens: what each may do. The file holds their hashes, never themselves."""

import hashlib
import json
import secrets
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from classifier.errors import InvalidSetting

MAX_FILE_BYTES = 2**20
_PREFIX = "sw_"
_RANDOM_BYTES = 32


class Scope(StrEnum):
    """What a token may be used for."""

    CLASSIFY = "classify"
    EXAMPLES_READ = "examples:read"
    EXAMPLES_WRITE = "examples:write"
    EXAMPLES_ACCEPT = "examples:accept"
    ADMIN = "admin"


class Token(BaseModel):
    """What is known of a token.

    Attributes:
        name: Who holds it; examples that it adds have this author.
        sha256: Of the token, in hexadecimal.
        scopes: What it may be used for.
        tokens_per_minute: Its prompt tokens, by estimate; None takes the server's default, 0 sets no limit.
        requests_per_second: Its requests; None takes the server's default, 0 sets no limit.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[frozenset[Scope], Field(min_length=1)]
    tokens_per_minute: Annotated[int, Field(ge=0, le=10**12)] | None = None
    requests_per_second: Annotated[float, Field(ge=0, le=1_000_000)] | None = None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: tuple[Token, ...] = ()


def scopes(names: list[str]) -> frozenset[Scope]:
    """The scopes of these names.

    Args:
        names: As in Scope.

    Returns:
        The scopes.

    Raises:
        InvalidSetting: When a name is none.
    """
    unknown = set(names) - set(Scope)
    if unknown:
        raise InvalidSetting(f"the scope {min(unknown)} is unknown: use {', '.join(Scope)}")
    return frozenset(map(Scope, names))


def digest(token: str) -> str:
    """The SHA-256 of a token, in hexadecimal."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def new_token(name: str, scopes: frozenset[Scope], **quota: float | None) -> tuple[str, str]:
    """Make a token of 256 random bits.

    Args:
        name: Who will hold it.
        scopes: What it may be used for.
        **quota: tokens_per_minute and requests_per_second, where they differ from the server's default.

    Returns:
        The token, and its lines for the tokens file.

    Raises:
        InvalidSetting: When the name, a scope or the quota is not allowed.
    """
    token = _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    try:
        Token.model_validate({"name": name, "sha256": digest(token), "scopes": scopes, **quota})
    except ValidationError as error:
        raise InvalidSetting(f"{_place(error)} is not allowed: see docs/security.md") from None
    lines = ["[[tokens]]", f'name = "{name}"', f'sha256 = "{digest(token)}"']
    lines.append(f"scopes = {json.dumps(sorted(scopes))}")
    lines += [f"{key} = {value}" for key, value in quota.items() if value is not None]
    return token, "\n".join(lines)


def read_tokens(path: Path) -> tuple[Token, ...]:
    """Read a tokens file.

    Args:
        path: TOML with a [[tokens]] table for each token.

    Returns:
        The tokens.

    Raises:
        InvalidSetting: When the file cannot be read, is not valid, names somebody twice or may be written by everybody.
    """
    try:
        with path.open("rb") as file:
            everybody = path.stat().st_mode & 0o002
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidSetting(
            f"tokens_file {path} cannot be read ({error.strerror}): check its place and rights"
        ) from None
    if everybody:
        raise InvalidSetting(f"tokens_file {path} may be written by everybody: run  chmod o-w {path}")
    if len(data) > MAX_FILE_BYTES:
        raise InvalidSetting(f"tokens_file {path} is over {MAX_FILE_BYTES} bytes: keep fewer tokens")
    try:
        tokens = _File.model_validate(tomllib.loads(data.decode())).tokens
    except ValidationError as error:
        raise InvalidSetting(f"tokens_file {path} is not valid at {_place(error)}: see docs/security.md") from None
    except ValueError:
        raise InvalidSetting(f"tokens_file {path} is no TOML in UTF-8: see docs/security.md") from None
    for kind in ("name", "sha256"):
        values = [getattr(token, kind) for token in tokens]
        if len(set(values)) < len(values):
            raise InvalidSetting(f"tokens_file {path} holds a {kind} twice: give each token its own")
    return tokens


def _place(error: ValidationError) -> str:
    return ".".join(map(str, error.errors(include_input=False)[0]["loc"])) or "its form"
