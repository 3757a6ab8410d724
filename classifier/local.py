"""Scores prompts in this process, with the results that a server would send."""

from collections.abc import Iterable, Iterator
from itertools import islice

from stillwatch.v1 import classifier_pb2

from classifier.config import Settings
from classifier.conversation import body_text
from classifier.errors import InvalidPrompt
from classifier.prompts import NamedPrompt
from classifier.runtime import open_runtime
from classifier.scorer import Scorer
from classifier.serve import convert
from classifier.serve.status import status_of
from classifier.views import Prepared

_BATCH = 64


def score_locally(prompts: Iterable[NamedPrompt], settings: Settings) -> Iterator[classifier_pb2.BatchResult]:
    """Open the runtime and score prompts batch by batch.

    Args:
        prompts: What to score.
        settings: Where bundle and store are.

    Yields:
        A result for each prompt, in order.
    """
    with open_runtime(settings) as runtime:
        rest = iter(prompts)
        while group := list(islice(rest, _BATCH)):
            yield from _score(group, runtime.scorer)


def _score(group: list[NamedPrompt], scorer: Scorer) -> Iterator[classifier_pb2.BatchResult]:
    prepared = [_prepared(prompt, scorer) for prompt in group]
    scored = scorer.score_prepared([form for form in prepared if isinstance(form, Prepared)])
    verdicts = iter(scored.verdicts)
    for prompt, form in zip(group, prepared, strict=True):
        if isinstance(form, Prepared):
            yield classifier_pb2.BatchResult(
                id=prompt.name,
                verdict=convert.verdict(next(verdicts)),
                provenance=convert.provenance(scored.provenance),
            )
        else:
            yield classifier_pb2.BatchResult(id=prompt.name, status=status_of(form))


def _prepared(prompt: NamedPrompt, scorer: Scorer) -> Prepared | InvalidPrompt:
    try:
        text = prompt.content if isinstance(prompt.content, str) else body_text(prompt.content)
    except InvalidPrompt as error:
        return error
    return scorer.prepare_each([text])[0]
