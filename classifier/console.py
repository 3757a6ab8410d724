"""What every verb of the command line uses: settings, the terminal, and how an error ends the command."""

import sys
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from classifier.config import Settings


def read_settings() -> "Settings":
    """The operator's settings; what is wrong with them ends the command."""
    from pydantic import ValidationError

    from classifier.config import Settings

    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(map(str, first["loc"])) or "stillwatch.toml"
        fail(f"the setting {name} is not valid ({first['msg']}): see docs/settings.md")
    except ValueError:
        fail("stillwatch.toml cannot be read: it must be TOML in UTF-8, see docs/settings.md")


def console(*, errors: bool = False) -> "Console":
    """The terminal, or a pipe: standard output, or standard error."""
    from rich.console import Console

    stream = sys.stderr if errors else sys.stdout
    # A pipe has no width; give its reader whole lines.
    return Console(highlight=False, stderr=errors, width=None if stream.isatty() else 160)


def say(text: str) -> None:
    """Print a line on standard error."""
    typer.echo(text, err=True)


def fail(text: str) -> NoReturn:
    """Say what is wrong and end the command with exit code 1."""
    say(f"error: {text}")
    raise SystemExit(1)
