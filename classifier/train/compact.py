"""A compact encoder: fewer layers, heads and neurons of the published one, repaired by least squares, without training.

A layer that is left out, a head or a neuron that is dropped changes what the next layer sees. Which ones matter least
is found by optimal brain surgery (Hassibi & Stork, 1993) on the activations of seed texts: with the Gram matrix of a
product's inputs, the cost of dropping an input and the best weights of the rest have closed forms. Each compact layer
is fitted to the published model's state after a layer of its own, so that it also stands for the layer left out before.
See docs/decisions/0006-a-compact-encoder.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

Floats = NDArray[np.float32]
Weights = Mapping[str, Floats]
HEAD_SIZE = 32
_PUBLISHED_LAYERS = 6
_EPSILON = 1e-12
_RIDGE = 1e-4
_STEP = 12
"""One part in so many of the inputs is dropped before the costs are computed anew."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How compact the encoder is.

    Attributes:
        sources: For each compact layer the published layer whose attention and neurons it takes.
        targets: For each compact layer the published layer whose output it is fitted to.
        heads: Attention heads that are kept, of 12.
        neurons: Feed-forward neurons that are kept, of 1,536.
    """

    sources: tuple[int, ...] = (0, 2, 4, 5)
    targets: tuple[int, ...] = (1, 3, 4, 5)
    heads: int = 6
    neurons: int = 512


@dataclass(frozen=True, slots=True)
class _Texts:
    """Tokens of several texts, one after the other, with where each text begins and ends."""

    ids: NDArray[np.int64]
    bounds: list[tuple[int, int]]


def compacted(weights: Weights, sequences: Sequence[Sequence[int]], shape: Shape | None = None) -> dict[str, Floats]:
    """Make the compact encoder's weights.

    Args:
        weights: The published tensors.
        sequences: Texts whose activations decide, with their special tokens; some 30,000 tokens in all.
        shape: How compact.

    Returns:
        Tensors by their published names, with fewer layers.
    """
    shape = shape or Shape()
    ends = np.cumsum([len(sequence) for sequence in sequences]).tolist()
    texts = _Texts(
        np.array([token for sequence in sequences for token in sequence]),
        list(zip([0, *ends[:-1]], ends, strict=True)),
    )
    middles, outputs = _published_states(weights, texts)
    found = {name: value for name, value in weights.items() if not name.startswith("encoder.layer.")}
    hidden = _embedded(weights, texts)
    for number, (source, target) in enumerate(zip(shape.sources, shape.targets, strict=True)):
        own, theirs = f"encoder.layer.{number}", f"encoder.layer.{source}."
        found |= {f"{own}.{name[len(theirs) :]}": value for name, value in weights.items() if name.startswith(theirs)}
        for part in ("weight", "bias"):
            found[f"{own}.output.LayerNorm.{part}"] = weights[f"encoder.layer.{target}.output.LayerNorm.{part}"]
        gathered = _attended(found, number, hidden, texts)
        kept, *product = _pruned(gathered, middles[source] - hidden, HEAD_SIZE, shape.heads)
        for part in ("query", "key", "value"):
            _keep(found, f"{own}.attention.self.{part}", kept)
        _set(found, f"{own}.attention.output.dense", product)
        middle = _middle(found, number, hidden, gathered[:, kept])
        neurons = _neurons(found, number, middle)
        kept, *product = _pruned(neurons, outputs[target] - middle, 1, shape.neurons)
        _keep(found, f"{own}.intermediate.dense", kept)
        _set(found, f"{own}.output.dense", product)
        hidden = _norm(found, f"{own}.output.LayerNorm", _after(found, number, middle))
    return found


def _published_states(weights: Weights, texts: _Texts) -> tuple[list[Floats], list[Floats]]:
    """Of each published layer the sums before its two normalisations."""
    middles, outputs, hidden = [], [], _embedded(weights, texts)
    for number in range(_PUBLISHED_LAYERS):
        own = f"encoder.layer.{number}"
        gathered = _attended(weights, number, hidden, texts)
        middles.append(hidden + _linear(weights, f"{own}.attention.output.dense", gathered))
        middle = _norm(weights, f"{own}.attention.output.LayerNorm", middles[-1])
        outputs.append(_after(weights, number, middle))
        hidden = _norm(weights, f"{own}.output.LayerNorm", outputs[-1])
    return middles, outputs


def _pruned(inputs: Floats, wanted: Floats, size: int, count: int) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Which groups of inputs to keep, and the product that then comes nearest to what is wanted.

    Args:
        inputs: (tokens, inputs) activations.
        wanted: (tokens, outputs) what the product should give.
        size: Inputs in a group.
        count: Groups to keep.

    Returns:
        The kept inputs' numbers, (outputs, kept) weights and (outputs,) bias.
    """
    width = inputs.shape[1]
    rows = np.hstack([inputs, np.ones((len(inputs), 1), np.float32)])
    gram, cross = (rows.T @ rows).astype(np.float64), (rows.T @ wanted).astype(np.float64)
    gram += _RIDGE * np.diagonal(gram).mean() * np.eye(width + 1)
    groups = np.arange(width // size)
    while len(groups) > count:
        held = _members(groups, size, width)
        inverse = np.linalg.inv(gram[np.ix_(held, held)])
        costs = _costs(inverse, inverse @ cross[held], size)
        dropped = np.argsort(costs, kind="stable")[: max(1, min(len(groups) - count, len(groups) // _STEP))]
        groups = np.delete(groups, dropped)
    held = _members(groups, size, width)
    product = np.linalg.solve(gram[np.ix_(held, held)], cross[held]).astype(np.float32)
    return held[:-1], np.ascontiguousarray(product[:-1].T), product[-1]


def _members(groups: NDArray[np.int64], size: int, width: int) -> NDArray[np.int64]:
    """The inputs of the groups; the constant one is always kept, and last."""
    return np.append((groups[:, None] * size + np.arange(size)).ravel(), width)


def _costs(inverse: NDArray[np.floating], weights: NDArray[np.floating], size: int) -> NDArray[np.float64]:
    """What the squared error grows by when a group of inputs is dropped."""
    count = (len(weights) - 1) // size
    own = weights[:-1].reshape(count, size, -1)
    blocks = np.stack([inverse[i : i + size, i : i + size] for i in range(0, count * size, size)])
    return np.asarray((own * np.linalg.solve(blocks, own)).sum(axis=(1, 2)))


def _embedded(weights: Weights, texts: _Texts) -> Floats:
    places = np.concatenate([np.arange(end - start) for start, end in texts.bounds])
    total = weights["embeddings.word_embeddings.weight"][texts.ids]
    total = total + weights["embeddings.position_embeddings.weight"][places]
    return _norm(weights, "embeddings.LayerNorm", total + weights["embeddings.token_type_embeddings.weight"][0])


def _attended(weights: Weights, number: int, hidden: Floats, texts: _Texts) -> Floats:
    """(tokens, heads * 32): what the heads gather, before their output product."""
    own = f"encoder.layer.{number}.attention.self"
    query, key, value = (
        _linear(weights, f"{own}.{part}", hidden).reshape(len(hidden), -1, HEAD_SIZE).swapaxes(0, 1)
        for part in ("query", "key", "value")
    )
    found = np.empty_like(value)
    for start, end in texts.bounds:
        part = slice(start, end)
        scores = query[:, part] @ key[:, part].swapaxes(1, 2) / np.float32(np.sqrt(HEAD_SIZE))
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        found[:, part] = shares / shares.sum(axis=-1, keepdims=True) @ value[:, part]
    return np.ascontiguousarray(found.swapaxes(0, 1)).reshape(len(hidden), -1)


def _middle(weights: Weights, number: int, hidden: Floats, gathered: Floats) -> Floats:
    own = f"encoder.layer.{number}.attention.output"
    return _norm(weights, f"{own}.LayerNorm", hidden + _linear(weights, f"{own}.dense", gathered))


def _after(weights: Weights, number: int, middle: Floats) -> Floats:
    return middle + _linear(weights, f"encoder.layer.{number}.output.dense", _neurons(weights, number, middle))


def _neurons(weights: Weights, number: int, middle: Floats) -> Floats:
    given = _linear(weights, f"encoder.layer.{number}.intermediate.dense", middle)
    return np.asarray(0.5 * given * (1.0 + erf(given / np.float32(np.sqrt(2.0)))), np.float32)


def _linear(weights: Weights, name: str, value: Floats) -> Floats:
    return np.asarray(value @ weights[f"{name}.weight"].T + weights[f"{name}.bias"], np.float32)


def _norm(weights: Weights, name: str, value: Floats) -> Floats:
    centred = value - value.mean(axis=-1, keepdims=True)
    spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + _EPSILON)
    return np.asarray(centred / spread * weights[f"{name}.weight"] + weights[f"{name}.bias"], np.float32)


def _keep(found: dict[str, Floats], name: str, kept: NDArray[np.int64]) -> None:
    found[f"{name}.weight"], found[f"{name}.bias"] = found[f"{name}.weight"][kept], found[f"{name}.bias"][kept]


def _set(found: dict[str, Floats], name: str, product: Sequence[Floats]) -> None:
    found[f"{name}.weight"], found[f"{name}.bias"] = product
