"""Scores prompts on a server, in requests that fit its limits and its speed, trying again as it asks while it is full."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from stillwatch.v1 import classifier_pb2

from classifier.client import Client
from classifier.errors import NotUnicode, ServiceFailed
from classifier.prompts import NamedPrompt
from classifier.serve.status import RETRY_AFTER, status_of
from index.example import is_unicode

T = TypeVar("T")
_MOST_ITEMS = 64
_MOST_BYTES = 2**22
_TRIES = 40
_LONGEST_WAIT = 10.0
"""Seconds before the next try, whatever the server asks for."""
_PATIENCE = 600.0
"""Seconds for a prompt that alone takes longer than a call may by default."""


def score_remotely(prompts: Iterable[NamedPrompt], server: str) -> Iterator[classifier_pb2.BatchResult]:
    """Score prompts on a server.

    Args:
        prompts: What to score.
        server: Host and port.

    Yields:
        A result for each prompt, in order.

    Raises:
        ServiceFailed: When the server does not answer.
    """
    with Client(server) as client:
        for group in _groups(prompts):
            good = [prompt for prompt in group if _is_unicode(prompt)]
            answers = iter(_answers(client, good, server) if good else ())
            for prompt in group:
                if prompt in good:
                    result = next(answers)
                    result.id = prompt.name
                    yield result
                else:
                    error = NotUnicode("the prompt holds an unpaired surrogate: send valid Unicode text")
                    yield classifier_pb2.BatchResult(id=prompt.name, status=status_of(error))


def _groups(prompts: Iterable[NamedPrompt]) -> Iterator[list[NamedPrompt]]:
    group: list[NamedPrompt] = []
    size = 0
    for prompt in prompts:
        bound = 4 * len(prompt.content)  # UTF-8 takes at most four bytes for a character
        if group and (len(group) == _MOST_ITEMS or size + bound > _MOST_BYTES):
            yield group
            group, size = [], 0
        group.append(prompt)
        size += bound
    if group:
        yield group


def _answers(client: Client, prompts: list[NamedPrompt], server: str) -> Iterable[classifier_pb2.BatchResult]:
    """Ask for all; for each half alone when the server says that all would take longer than the call may."""
    try:
        return _ask(client, prompts)
    except ServiceFailed as error:
        if error.reason != "DEADLINE_TOO_SHORT":
            raise
    if len(prompts) == 1:
        with Client(server, timeout=_PATIENCE) as patient:
            return _ask(patient, prompts)
    half = len(prompts) // 2
    return [*_answers(client, prompts[:half], server), *_answers(client, prompts[half:], server)]


def _ask(client: Client, prompts: list[NamedPrompt]) -> Iterable[classifier_pb2.BatchResult]:
    return patiently(lambda: client.classify_batch([prompt.content for prompt in prompts])).results


def patiently(ask: Callable[[], T]) -> T:
    """Ask a server, and again when it asks for that because it is busy.

    Args:
        ask: Makes the call.

    Returns:
        The answer.

    Raises:
        ServiceFailed: When the server refuses for another reason, or stays too busy.
    """
    for _ in range(_TRIES):
        try:
            return ask()
        except ServiceFailed as error:
            if error.reason not in ("QUEUE_FULL", "QUOTA_EXCEEDED"):
                raise
            wait = RETRY_AFTER.total_seconds() if error.retry_after is None else error.retry_after
        time.sleep(min(wait, _LONGEST_WAIT))
    raise ServiceFailed("the server stayed too busy: try again later", "RESOURCE_EXHAUSTED", "QUEUE_FULL")


def _is_unicode(prompt: NamedPrompt) -> bool:
    return isinstance(prompt.content, bytes) or is_unicode(prompt.content)
