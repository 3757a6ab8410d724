"""What scores a batch: the process itself, or others; the batcher knows only that it is one or several places."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from classifier.errors import StillwatchError
from classifier.kept import KeptEmbeddings
from classifier.scorer import Scorer
from classifier.serve.received import Received
from classifier.verdict import Provenance, Scored, StageTimes, Verdict
from classifier.views import Prepared

Found: TypeAlias = Verdict | Received
_NOTHING = Provenance("", 0, 0.0, 0.0)
_NO_TIME = StageTimes(0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Part:
    """Prompts that were scored together: by one model, with one revision of the examples.

    Attributes:
        found: For each prompt its verdict, or what was wrong with it.
        provenance: Model and examples; of no meaning when no prompt has a verdict.
        times: The stages' milliseconds; the same.
        spared: Tokens that were not encoded, because their windows were known.
    """

    found: tuple[Found | Exception, ...]
    provenance: Provenance = _NOTHING
    times: StageTimes = _NO_TIME
    spared: int = 0

    @property
    def verdicts(self) -> tuple[Found, ...]:
        """The verdicts alone."""
        return tuple(one for one in self.found if not isinstance(one, Exception))


class Backend(Protocol):
    """Scores batches, as many at once as it has places. Used from one event loop."""

    @property
    def places(self) -> int:
        """How many batches it scores at once."""

    async def score(self, texts: Sequence[str]) -> list[Part]:
        """Score a batch, as one part unless a prompt breaks it; the parts hold the prompts in order."""

    async def close(self) -> None:
        """Free what is held, once nothing is being scored."""


class InProcess:
    """Scores on a thread of this process, one batch at a time."""

    places = 1

    def __init__(self, scorer: Callable[[], Scorer]) -> None:
        """Start nothing yet.

        Args:
            scorer: Returns what scores now; asked once a batch.
        """
        self._scorer = scorer
        self._thread = ThreadPoolExecutor(1, "score")

    async def score(self, texts: Sequence[str]) -> list[Part]:
        """Score a batch on the thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, score_parts, self._scorer, texts)

    async def close(self) -> None:
        """Wait for the thread's end."""
        self._thread.shutdown()


def score_parts(scorer: Callable[[], Scorer], texts: Sequence[str]) -> list[Part]:
    """Score prompts together; when that breaks, each alone, so that only the one that breaks it fails.

    Args:
        scorer: Returns what scores now; asked once a part.
        texts: Prompts.

    Returns:
        One part, or one for each prompt.
    """
    try:
        return [_together(scorer(), texts)]
    except BaseException as error:  # noqa: BLE001  # a panic in a library is no Exception; it must not spread either
        if len(texts) == 1:
            return [Part((error if isinstance(error, Exception) else RuntimeError(type(error).__name__),))]
        return [part for text in texts for part in score_parts(scorer, [text])]


def _together(scorer: Scorer, texts: Sequence[str]) -> Part:
    started = time.perf_counter()
    prepared = scorer.prepare_each(texts)
    good = [prompt for prompt in prepared if isinstance(prompt, Prepared)]
    if not good:
        return Part(tuple(prompt for prompt in prepared if isinstance(prompt, StillwatchError)))
    before = _spared(scorer)
    scored: Scored = scorer.score_prepared(good, tokenise_seconds=time.perf_counter() - started)
    verdicts = iter(scored.verdicts)
    found = tuple(next(verdicts) if isinstance(prompt, Prepared) else prompt for prompt in prepared)
    return Part(found, scored.provenance, scored.times, _spared(scorer) - before)


def _spared(scorer: Scorer) -> int:
    """Tokens that the scorer's encoder did not have to encode so far."""
    encoder = scorer.model.encoder
    return encoder.spared if isinstance(encoder, KeptEmbeddings) else 0
