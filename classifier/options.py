"""Options that several verbs share, and those of every command that has --server: how to reach it."""

import os
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

ServerOption = Annotated[
    str | None, typer.Option("--server", help="Ask this server (host:port) instead of scoring here.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
_app = typer.Typer(add_completion=False)


def _option(name: str, text: str) -> Any:
    """An option that goes before the environment's variable of the same name, and reaches no function."""
    variable = f"STILLWATCH_CLIENT_{name.upper()}"
    return typer.Option(f"--{name}", help=f"{text} Else {variable}.", expose_value=False, callback=_keep(variable))


def _keep(variable: str) -> Callable[[Any], None]:
    def keep(value: Any) -> None:
        if value:
            os.environ[variable] = str(value)

    return keep


@_app.command()
def _reach(
    tls: Annotated[bool, _option("tls", "Speak TLS, and trust gRPC's own roots, not this machine's.")] = False,
    ca: Annotated[str | None, _option("ca", "Speak TLS, and trust the certificates in this PEM file.")] = None,
    cert: Annotated[str | None, _option("cert", "This caller's certificate, a PEM file.")] = None,
    key: Annotated[str | None, _option("key", "The certificate's private key, a PEM file.")] = None,
    token: Annotated[str | None, _option("token", "The bearer token; others see options, so set the variable.")] = None,
) -> None:
    """Never called: only its options are taken."""


class ServerCommand(TyperCommand):
    """A command with --server."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Add the options to the command's own."""
        super().__init__(*args, **kwargs)
        self.params.extend(typer.main.get_command(_app).params)
