"""The review queue: prompts that nobody has decided yet, each with its score, its reason and what is known near it."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from classifier.batch.template import template
from classifier.desk.choosing import Chooser, Seen, Why, farthest_first, mixed
from classifier.desk.sample import Floats
from classifier.errors import MissingExtra
from classifier.policy import Thresholds
from classifier.scorer import Scorer
from classifier.text import fold
from classifier.verdict import Decision, LabelScore, Verdict
from classifier.views import Prepared
from index.contract import ExampleStore
from index.errors import ExampleNotFound
from index.example import Label, content_hash, example_id
from index.live import Match

_BATCH = 32
_TARGETED = 0.5
"""The probability from which a capability is suggested."""

Look = Callable[[Sequence[Seen]], Iterable[Seen]]
"""Gives prompts that were seen in a log their text; leaves out those that are not there any more."""


@dataclass(frozen=True, slots=True)
class Means:
    """What a queue is made with; a server's or this process's.

    Attributes:
        judge: Prompts to verdicts; None for one that cannot be scored.
        settled: Of content hashes those that are decided or stored, in whatever state.
        embed: Prompts to (n, d) float32 unit rows; None where there is none to ask: then templates alone tell prompts apart.
    """

    judge: Callable[[Sequence[str]], Sequence[Verdict | None]]
    settled: Callable[[Collection[str]], Collection[str]]
    embed: Callable[[Sequence[str]], Floats] | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """A prompt to review.

    Attributes:
        prompt: Its text.
        content_hash: SHA-256 of its UTF-8 bytes, in hexadecimal.
        why: Of which kind it is.
        reason: Why it is shown, in words, without any prompt text.
        decision: What the scorer decides of it now.
        probability: Its extraction probability now, in [0, 1].
        label: The likelier label.
        technique: The likeliest technique, should it be extraction; None where the bundle knows none.
        capabilities: The capabilities that it likely targets.
        nearest: The nearest known examples, highest cosine first.
    """

    prompt: str
    content_hash: str
    why: Why
    reason: str
    decision: Decision
    probability: float
    label: Label
    technique: str | None
    capabilities: tuple[str, ...]
    nearest: tuple[Match, ...]


def means_of(scorer: Scorer, store: ExampleStore) -> Means:
    """Make queues in this process.

    Args:
        scorer: Judges and embeds.
        store: Knows what is stored and decided.

    Returns:
        The means.
    """

    def judge(prompts: Sequence[str]) -> list[Verdict | None]:
        prepared = scorer.prepare_each(prompts)
        verdicts = iter(scorer.score_prepared([one for one in prepared if isinstance(one, Prepared)]).verdicts)
        return [next(verdicts) if isinstance(one, Prepared) else None for one in prepared]

    def settled(hashes: Collection[str]) -> set[str]:
        return set(store.decided(hashes)) | {name for name in hashes if _is_stored(store, name)}

    return Means(judge, settled, scorer.embed)


def seen_of(prompts: Iterable[str], means: Means) -> Iterator[Seen]:
    """Score prompts that come without scores.

    Args:
        prompts: Texts, any number of them.
        means: Judges them.

    Yields:
        Those that can be scored.
    """
    rest = iter(prompts)
    while some := list(islice(rest, _BATCH)):
        for prompt, verdict in zip(some, means.judge(some), strict=True):
            if verdict is not None:
                key = template(fold(prompt))
                yield Seen(content_hash(prompt), verdict.extraction_probability, verdict.decision, key, prompt)


def make_queue(seen: Iterable[Seen], chooser: Chooser, means: Means, look: Look = lambda seen: seen) -> list[Item]:
    """Choose prompts to review.

    Args:
        seen: Scored prompts, any number of them; they are gone over once.
        chooser: A fresh one: says how many and of which kinds.
        means: Judges the chosen ones anew, and knows what is settled.
        look: Finds the text of prompts that came without one.

    Returns:
        At most as many items as the chooser wants, the kinds by turns; fewer where there is no more to decide.

    Raises:
        StoreUnavailable: When the store cannot be read.
        DataRejected: When the prompts' text cannot be found.
    """
    for one in seen:
        chooser.add(one)
    pools = chooser.pools()
    wanted = {one.name: one for pool in pools.values() for one in pool}
    found = {one.name: one for one in wanted.values() if one.prompt is not None}
    found |= {one.name: one for one in look([one for one in wanted.values() if one.prompt is None])}
    hashes = {one.name: content_hash(one.prompt) for one in found.values() if one.prompt is not None}
    settled = set(means.settled(set(hashes.values())))
    left = {
        why: [found[one.name] for one in pool if one.name in hashes and hashes[one.name] not in settled]
        for why, pool in pools.items()
    }
    if means.embed and left[Why.DIVERSE]:
        rows = means.embed([one.prompt or "" for one in left[Why.DIVERSE]])
        left[Why.DIVERSE] = [left[Why.DIVERSE][row] for row in farthest_first(rows)]
    return list(_items(mixed(left, chooser.counts, chooser.size), chooser.thresholds, means))


def queue_of_run(folder: Path, chooser: Chooser, means: Means) -> list[Item]:
    """Choose prompts of re-scored logs to review; see make_queue.

    Args:
        folder: A run's output. Without its prompts they are read from the files that were scored.
        chooser: A fresh one.
        means: Judges the chosen ones anew, and knows what is settled.

    Returns:
        The items.

    Raises:
        MissingExtra: When a package of the batch extra is not installed.
        RunRefused: When the folder holds no run.
        DataRejected: When its scores cannot be read, or its prompts cannot be found.
        StoreUnavailable: When the store cannot be read.
    """
    try:
        from classifier.desk.runs import RunPrompts
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "batch") from None
    run = RunPrompts(folder)
    return make_queue(run.seen(), chooser, means, run.look)


def _items(chosen: Sequence[tuple[Why, Seen]], thresholds: Thresholds, means: Means) -> Iterator[Item]:
    for start in range(0, len(chosen), _BATCH):
        some = chosen[start : start + _BATCH]
        prompts = [seen.prompt or "" for _, seen in some]
        for (why, _), prompt, verdict in zip(some, prompts, means.judge(prompts), strict=True):
            if verdict is not None:
                yield _item(why, prompt, verdict, thresholds)


def _item(why: Why, prompt: str, verdict: Verdict, thresholds: Thresholds) -> Item:
    judged = verdict.decision != Decision.ABSTAIN
    attack = judged and verdict.extraction_probability >= thresholds.review
    return Item(
        prompt=prompt,
        content_hash=content_hash(prompt),
        why=why,
        reason=_reason(why, verdict, thresholds),
        decision=verdict.decision,
        probability=verdict.extraction_probability,
        label=Label.EXTRACTION if attack else Label.BENIGN,
        technique=verdict.techniques[0].name if verdict.techniques else None,
        capabilities=tuple(score.name for score in verdict.capabilities if _targeted(score, judged=judged)),
        nearest=verdict.nearest_examples,
    )


def _targeted(score: LabelScore, *, judged: bool) -> bool:
    return judged and score.probability >= _TARGETED


def _reason(why: Why, verdict: Verdict, thresholds: Thresholds) -> str:
    if verdict.decision == Decision.ABSTAIN:
        score = "it is not judged"
    else:
        score = f"its extraction probability is {verdict.extraction_probability:.3f}"
    if why is Why.UNCERTAIN:
        return f"{score}, near a threshold (review {thresholds.review:.3f}, flag {thresholds.flag:.3f})"
    if why is Why.DIVERSE:
        return f"its template is unlike those shown before; {score}"
    return f"drawn by chance from all traffic; {score}"


def _is_stored(store: ExampleStore, digest: str) -> bool:
    with suppress(ExampleNotFound):
        store.get(example_id(digest))
        return True
    return False
