"""The documentation names every verb, setting, call and error reason, and the commands that it promises."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stillwatch.v1
import typer.main

from classifier.cli import app
from classifier.config import Settings
from classifier.serve.status import STATUS

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCS = ROOT / "docs"


def verbs(command: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Every verb that does something, with the groups before it: "examples add"."""
    children = getattr(command, "commands", None)
    if children is None:
        yield " ".join(path)
    for name, child in (children or {}).items():
        yield from verbs(child, (*path, name))


def services() -> Iterator[Any]:
    """Every service of the .proto files."""
    for found in pkgutil.iter_modules(stillwatch.v1.__path__, f"{stillwatch.v1.__name__}."):
        if found.name.endswith("_pb2"):
            yield from importlib.import_module(found.name).DESCRIPTOR.services_by_name.values()


def rpcs() -> Iterator[str]:
    """Every method of every service of the .proto files."""
    yield from (method.name for service in services() for method in service.methods)


def read(path: Path) -> str:
    assert path.is_file(), f"{path.relative_to(ROOT)} is not written yet"
    return path.read_text()


def read_all() -> str:
    return "\n".join(read(path) for path in (README, *sorted(DOCS.glob("*.md"))))


def holds(text: str, word: str) -> bool:
    """Whether a text holds a word that is not part of a longer one."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) is not None


def commands(script: Path) -> list[str]:
    return [line.strip() for line in read(script).splitlines()]


VERBS = sorted(verbs(typer.main.get_command(app)))
RPCS = sorted(rpcs())
SETTINGS = sorted(f"STILLWATCH_{name.upper()}" for name in Settings.model_fields)
REASONS = sorted({reason for _, reason in STATUS.values()})


def test_the_lists_that_the_docs_are_held_to_are_not_empty() -> None:
    assert {"serve", "score", "examples add", "bundle build"} <= set(VERBS)
    assert {"Classify", "BatchClassify", "StreamClassify", "AddExamples", "FindNeighbours"} <= set(RPCS)
    assert {"STILLWATCH_HOME", "STILLWATCH_PORT"} <= set(SETTINGS)
    assert {"EMPTY_PROMPT", "EXAMPLE_CONFLICT"} <= set(REASONS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_of_the_command_line_is_documented(verb: str) -> None:
    assert re.search(rf"(stillwatch |`){re.escape(verb)}(?![\w-])", read_all()), f"stillwatch {verb} is undocumented"


@pytest.mark.parametrize("rpc", RPCS)
def test_every_rpc_is_documented(rpc: str) -> None:
    assert holds(read_all(), rpc), f"{rpc} is undocumented"


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_is_documented_in_the_settings(setting: str) -> None:
    assert holds(read(DOCS / "settings.md"), setting), f"docs/settings.md says nothing of {setting}"


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_of_an_error_is_documented_in_the_errors(reason: str) -> None:
    assert holds(read(DOCS / "errors.md"), reason), f"docs/errors.md says nothing of {reason}"


@pytest.mark.parametrize("command", ["make serve", "make test"])
def test_the_readme_begins_with_how_to_serve_and_test(command: str) -> None:
    assert holds("\n".join(read(README).splitlines()[:40]), command), f"README.md names {command} too late"


@pytest.mark.parametrize("command", ["make check", "make test"])
def test_the_ci_calls_what_the_readme_names(command: str) -> None:
    assert command in commands(ROOT / ".ci" / "run")


def test_every_relative_link_leads_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
