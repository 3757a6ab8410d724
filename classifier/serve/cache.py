"""The verdict cache: a prompt that was scored a moment ago is not scored again.

A hit answers sooner than a miss, which tells a caller that somebody asked the same before. So that it tells nothing about
other callers, each caller has a scope of its own (`scope_of`). Neither prompts nor credentials are kept, only hashes keyed
with a secret of this process.
"""

import asyncio
import hashlib
import secrets
import weakref
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import grpc

from classifier.errors import InvalidPrompt, StillwatchError
from classifier.scorer import Scorer
from classifier.serve.batcher import Answer, Outcome, Urgency
from classifier.verdict import StageTimes

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Compute = Callable[[Sequence[str]], Awaitable[Sequence[Outcome]]]
Flight: TypeAlias = "asyncio.Future[Outcome | None]"
_NO_TIME = StageTimes(0.0, 0.0, 0.0, 0.0)
_ENTRY_BYTES = 2_048
_SCORE_BYTES = 128
_TEXT_BYTES = 256


class VerdictCache:
    """Keeps the last answers of one generation: one scorer with one revision of the examples. Used from one event loop."""

    def __init__(self, scorer: Callable[[], Scorer], *, entries: int, most_bytes: int) -> None:
        """Begin empty.

        Args:
            scorer: The scorer in force; another one, or another index revision, empties the cache.
            entries: The most answers that are kept; 0 keeps none and shares none.
            most_bytes: The most bytes, by estimate, of the answers that are kept.
        """
        self._scorer = scorer
        self._most = entries
        self._most_bytes = most_bytes
        self._secret = secrets.token_bytes(32)
        self._held: OrderedDict[bytes, Answer] = OrderedDict()
        self._flights: dict[tuple[Urgency, bytes], Flight] = {}
        self._generation: tuple[weakref.ref[Scorer], int] | None = None  # what a reload replaced must be freed
        self.bytes = 0
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        """How many answers are kept."""
        return len(self._held)

    async def answer(
        self, texts: Sequence[str], compute: Compute, scope: bytes = b"", urgency: Urgency = Urgency.SINGLE
    ) -> list[Outcome]:
        """Answer prompts from the cache, and have the others scored: equal ones that come together only once.

        Args:
            texts: Prompts.
            compute: Scores prompts, as MicroBatcher.submit does; what it raises is raised here.
            scope: Whose prompts they are; other scopes' answers are not seen.
            urgency: How long they may wait; nobody waits for what was sent with another urgency.

        Returns:
            For each prompt its answer, or the error that it met. Of a kept answer all times are 0.
        """
        if not self._most:
            return list(await compute(texts))
        keys = [self._key(text, scope) for text in texts]
        wanted = dict(zip(keys, texts, strict=True))
        found: dict[bytes, Outcome] = {}
        while wanted:
            generation = self._renewed()
            kept = {key: held for key in wanted if (held := self._get(key)) is not None}
            waiting = {
                key: flight for key in wanted if key not in kept and (flight := self._flights.get((urgency, key)))
            }
            mine = {key: text for key, text in wanted.items() if key not in kept and key not in waiting}
            self.hits += len(kept)
            self.misses += len(mine)
            found |= kept
            if mine:
                found |= await self._lead(mine, compute, generation, urgency)
            found |= await _followed(waiting)
            # What is missing now was refused, or given up by a caller who went away: one of those who wait leads next.
            wanted = {key: text for key, text in wanted.items() if key not in found}
        return [found[key] for key in keys]

    async def _lead(
        self, mine: Mapping[bytes, str], compute: Compute, generation: tuple[Scorer, int], urgency: Urgency
    ) -> dict[bytes, Outcome]:
        """Have prompts scored. A lone one is shared with who asks the same meanwhile; a batch would keep them waiting."""
        flights = {(urgency, key): asyncio.get_running_loop().create_future() for key in mine if len(mine) == 1}
        self._flights |= flights
        outcomes: dict[bytes, Outcome] = {}
        try:
            outcomes = dict(zip(mine, await compute(list(mine.values())), strict=True))
        except StillwatchError as error:
            outcomes = dict.fromkeys(mine, error)
            raise
        finally:
            for name, flight in flights.items():
                if self._flights.get(name) is flight:
                    del self._flights[name]
                flight.set_result(outcomes.get(name[1]))
        if self._renewed() == generation:
            for key, outcome in outcomes.items():
                self._keep(key, outcome, generation)
        return outcomes

    def _key(self, text: str, scope: bytes) -> bytes:
        digest = hashlib.blake2b(digest_size=16, key=self._secret)
        digest.update(len(scope).to_bytes(4))
        digest.update(scope)
        digest.update(text.encode(errors="surrogatepass"))
        return digest.digest()

    def _renewed(self) -> tuple[Scorer, int]:
        """The generation in force; answers and flights of another one are dropped."""
        scorer = self._scorer()
        generation = (scorer, scorer.snapshot.revision)
        if (weakref.ref(scorer), generation[1]) != self._generation:
            self._generation = (weakref.ref(scorer), generation[1])
            self._held.clear()
            self._flights = {}
            self.bytes = 0
        return generation

    def _get(self, key: bytes) -> Answer | None:
        held = self._held.get(key)
        if held is not None:
            self._held.move_to_end(key)
        return held

    def _keep(self, key: bytes, outcome: Outcome, generation: tuple[Scorer, int]) -> None:
        if not isinstance(outcome, Answer) or key in self._held:
            return
        scorer, revision = generation
        made_by = (outcome.provenance.bundle_version, outcome.provenance.index_revision)
        if made_by != (scorer.model.version, revision):
            return
        self._held[key] = replace(outcome, times=_NO_TIME, queue=0.0, batch_size=0, cached=True)
        self.bytes += size_of(outcome)
        while len(self._held) > self._most or self.bytes > self._most_bytes:
            _, dropped = self._held.popitem(last=False)
            self.bytes -= size_of(dropped)


def size_of(answer: Answer) -> int:
    """The bytes that a kept answer takes, by an estimate that a test holds to be no lower than what is measured."""
    found = answer.verdict
    scores = len(found.techniques) + len(found.capabilities) + len(found.nearest_examples)
    texts = sum(_TEXT_BYTES + 4 * len(reason.text) for reason in found.reasons)
    return _ENTRY_BYTES + _SCORE_BYTES * scores + texts


def scope_of(context: Context) -> bytes:
    """Whose call this is, as far as the transport knows: the bearer token and the client certificate.

    Args:
        context: The call's.

    Returns:
        Bytes that differ between callers with different credentials; of callers without any they are the same.
    """
    parts = [str(value).encode() for name, value in context.invocation_metadata() or () if name == "authorization"]
    parts += context.peer_identities() or ()
    return b"".join(len(part).to_bytes(4) + part for part in parts)


async def _followed(flights: Mapping[bytes, Flight]) -> dict[bytes, Outcome]:
    """What others' flights bring. Another caller's refusal is not ours; a cancelled wait leaves the flight alone."""
    if not flights:
        return {}
    await asyncio.wait(flights.values())
    landed = {key: flight.result() for key, flight in flights.items()}
    return {key: outcome for key, outcome in landed.items() if isinstance(outcome, Answer | InvalidPrompt)}
