"""Long context: prompts buried at a random place of benign text, and the same text without them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from classifier.encoder import Tokens
from classifier.scorer import Scorer
from classifier.text import fold
from classifier.train.judged import judge, share
from classifier.train.labelled import EvaluationRow
from classifier.train.losses import Loss, loss
from classifier.train.metrics import Interval, Truth

_GAP = "\n\n"
PLACES = ("first third", "middle third", "last third")


@dataclass(frozen=True, slots=True)
class LongRow:
    """Prompts buried in benign texts of one length.

    Attributes:
        tokens: How many tokens the benign text has.
        prompts: How many benign prompts it is made of, on average.
        recall: Recall lost at 1 % false positives.
        unaided: Recall of those whose benign text is not itself over the threshold.
        places: Recall by the third of the text in which the prompt stands; nan where none does.
        read: Which share of the long texts' tokens is read.
        over: The share of the benign texts that is over the threshold at 1 % without anything buried, Wilson.
        flagged: The share of them that is flagged, Wilson.
    """

    tokens: int
    prompts: float
    recall: Loss
    unaided: float
    places: list[float]
    read: float
    over: Interval
    flagged: Interval


def measure_buried(
    rows: Sequence[EvaluationRow],
    alone: Truth,
    benign: Sequence[str],
    scorer: Scorer,
    *,
    cut: float,
    lengths: Sequence[int],
    draws: int,
    seed: int = 0,
    progress: Callable[[str], None] = lambda doing: None,
) -> list[LongRow]:
    """Bury each row in a benign text of its own, of each length.

    Args:
        rows: Prompts to bury.
        alone: (n,) which of them are over the threshold as they are.
        benign: Benign prompts, of which the long texts are made.
        scorer: What is evaluated.
        cut: The logit over which 1 % of the strict negatives stand.
        lengths: How many tokens of benign text.
        draws: Bootstrap resamples.
        seed: Of the texts and places.
        progress: Told what is being done.

    Returns:
        A row for each length; none where there is nothing to bury.
    """
    if not rows:
        return []
    folded = [fold(text) for text in benign]
    tokens = scorer.model.encoder.tokenise(folded)
    found = []
    for length in lengths:
        progress(f"long context: {len(rows)} prompts in {length:,} tokens of benign text")
        random = np.random.default_rng([seed, length])
        texts = [benign_text(folded, tokens, length, random) for _ in rows]
        hidden = [bury(row.text, text, random) for row, (text, _) in zip(rows, texts, strict=True)]
        plain, with_it = judge(scorer, [text for text, _ in texts]), judge(scorer, [text for text, _ in hidden])
        over, hits = plain.logits > cut, with_it.logits > cut
        thirds = np.array([min(2, int(3 * place)) for _, place in hidden])
        found.append(
            LongRow(
                tokens=length,
                prompts=float(np.mean([count for _, count in texts])),
                recall=loss(alone, hits, [row.template for row in rows], draws),
                unaided=_mean(hits[~over]),
                places=[_mean(hits[thirds == third]) for third in range(len(PLACES))],
                read=float(with_it.read.sum() / max(1, with_it.tokens.sum())),
                over=share(over),
                flagged=share(plain.flagged),
            )
        )
    return found


def benign_text(folded: Sequence[str], tokens: Sequence[Tokens], length: int, random: Generator) -> tuple[str, int]:
    """Put benign prompts one after the other, in random order, until they have so many tokens.

    Args:
        folded: Prompts in canonical form, none empty.
        tokens: Their tokens.
        length: How many tokens; the last prompt is cut off there.
        random: Draws the order; all prompts are used before one is used again.

    Returns:
        The text, and how many prompts it is made of.
    """
    parts: list[str] = []
    missing, order = length, random.permutation(len(folded)).tolist()
    while missing > 0:
        number = order[len(parts) % len(order)]
        ends = [end for _, end in tokens[number].spans[:missing]]
        parts.append(folded[number][: ends[-1]] if ends else folded[number])
        missing -= max(1, len(ends))
    return _GAP.join(parts), len(parts)


def bury(prompt: str, text: str, random: Generator) -> tuple[str, float]:
    """Put a prompt between two paragraphs of a text, or before the first or after the last.

    Args:
        prompt: What is hidden.
        text: Paragraphs, with blank lines between them.
        random: Draws the place, so that each part of the text is as likely as it is long.

    Returns:
        The whole, and the prompt's place in [0, 1].
    """
    paragraphs = text.split(_GAP)
    gaps = np.cumsum([0, *(len(paragraph) for paragraph in paragraphs)])
    chosen = int(np.abs(gaps - random.uniform(0, gaps[-1])).argmin())
    whole = _GAP.join([*paragraphs[:chosen], prompt, *paragraphs[chosen:]])
    return whole, float(gaps[chosen] / max(1, gaps[-1]))


def _mean(hits: Truth) -> float:
    return float(hits.mean()) if len(hits) else float("nan")
