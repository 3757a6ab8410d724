"""The example verbs on this machine's own store, without a server."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TypeAlias

from classifier.client import Client
from classifier.config import Settings
from classifier.example_verbs import ExampleVerbs
from classifier.runtime import Runtime, open_runtime
from classifier.sampling import open_sampling
from classifier.serve.example_calls import ExampleCalls
from classifier.serve.generations import Generations
from classifier.serve.guard import Caller
from classifier.serve.review_calls import ReviewCalls
from classifier.tokens import Scope
from classifier.verb import Blocking, Call, R

_OWNER = Caller("local", scopes=frozenset(Scope))
"""Whoever may write the store's file may do everything, under the name that he gives."""


class LocalExamples(ExampleVerbs, Blocking):
    """A client of this process: the same verbs, answered by the same code as a server's.

    Attributes:
        runtime: What answers.
    """

    def __init__(self, runtime: Runtime, settings: Settings) -> None:
        """Answer from an opened runtime."""
        self.runtime = runtime
        generations = Generations(runtime, settings, lambda: settings)
        examples = ExampleCalls(generations, settings, vouched=False)
        # Read when it is first asked for: it is large, and few verbs need it.
        sampling = cache(lambda: open_sampling(runtime.scorer.model, settings))
        reviews = ReviewCalls(generations, settings, lambda _: sampling())
        self._services = {"ExampleService": examples, "ReviewService": reviews}

    def _perform(self, call: Call[R]) -> R:
        service, _, method = call.method.partition("/")
        answer: R = getattr(self._services[service], method)(call.request, _OWNER)
        return answer


Verbs: TypeAlias = LocalExamples | Client
"""The example verbs, wherever they are answered."""


@contextmanager
def open_client(settings: Settings, server: str | None) -> Iterator[Verbs]:
    """The examples of a server, or those of the local store.

    Args:
        settings: Where the local store is.
        server: Host and port, or None.

    Yields:
        A client.
    """
    if server is not None:
        with Client(server) as client:
            yield client
    else:
        with open_runtime(settings) as runtime:
            yield LocalExamples(runtime, settings)
