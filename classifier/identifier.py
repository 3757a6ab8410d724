"""Language identification with little memory: py3langid's own model, its tables without what repeats in them.

py3langid's tables take 70 MiB and half a second to unpack. Most of its automaton's transitions lead where many others
lead, and four of five weights are their language's most frequent one; a bundle keeps what is left, 13 MB. Answers are
the very ones of the full tables, bit by bit.
"""

import json
from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from py3langid.langid import MODEL_FILE, LanguageIdentifier
from safetensors.numpy import load, save

Identify: TypeAlias = Callable[[str], tuple[str, float]]
"""A text's likeliest language, by its code, and a confidence in [0, 1]."""
_Table: TypeAlias = NDArray[Any]
_FORM: Mapping[str, tuple[type[np.generic], int]] = {
    "classes": (np.uint8, 1),  # language codes, as JSON
    "prior": (np.float32, 1),  # (languages,) log-probabilities
    "usual": (np.float16, 1),  # (languages,) each language's most frequent weight
    "unusual": (np.uint8, 2),  # (features, languages / 8) a bit where the weight is another one
    "weights": (np.float16, 1),  # those other weights, row by row
    "rows": (np.uint16, 1),  # (states,) each state's row of transitions
    "runs": (np.uint16, 2),  # (rows, 16) the runs that a row is made of
    "states": (np.uint32, 2),  # (runs, 16) where each of a run's bytes leads
    "features": (np.int32, 1),  # (states,) the feature that is seen there, -1 for none
}
_RUN = 16
"""Transitions of one run; rows share most of theirs."""


@cache
def packaged() -> Identify:
    """py3langid's identifier from its own tables, for bundles that bring none."""
    return _classify(_full())


def compact_tables() -> bytes:
    """py3langid's model as a bundle keeps it.

    Returns:
        A safetensors file.
    """
    full = _full()
    weights: NDArray[np.float16] = np.ascontiguousarray(full.nb_ptc, np.float16)
    bits = weights.view(np.uint16)
    usual = np.array([np.bincount(column).argmax() for column in bits.T], np.uint16)
    unusual = bits != usual
    states, runs = np.unique(np.asarray(full.tk_nextmove).reshape(-1, _RUN), axis=0, return_inverse=True)
    tables = {
        "classes": np.frombuffer(json.dumps(full.nb_classes).encode(), np.uint8),
        "prior": np.asarray(full.nb_pc),
        "usual": usual.view(np.float16),
        "unusual": np.packbits(unusual, axis=1),
        "weights": weights[unusual],
        "rows": np.asarray(full.tk_row),
        "runs": runs.reshape(-1, 256 // _RUN),
        "states": states,
        "features": np.asarray(full.tk_output),
    }
    return bytes(save({name: np.ascontiguousarray(_narrowed(name, table)) for name, table in tables.items()}))


def open_tables(data: bytes) -> Identify:
    """An identifier over compact tables.

    Args:
        data: What compact_tables gave.

    Returns:
        The identifier. Safe to call from any thread.

    Raises:
        ValueError: When the tables contradict each other.
    """
    tables = load(data)
    shapes = {name: (table.dtype.type, table.ndim) for name, table in tables.items()}
    if shapes != dict(_FORM):
        raise ValueError("not the tables of an identifier")
    return _classify(_Compact(tables))


class _Weights:
    """The weights of features for languages, given out row by row."""

    def __init__(self, tables: Mapping[str, _Table]) -> None:
        self._usual, self._weights = tables["usual"].astype(np.float32), tables["weights"]
        self._unusual = tables["unusual"]
        # Rows begin at the sum of the bits before them.
        counts = np.bitwise_count(self._unusual).sum(axis=1, dtype=np.int64)
        self._starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        if self._unusual.shape[1] != -(-len(self._usual) // 8) or self._starts[-1] != len(self._weights):
            raise ValueError("the weights do not fit their bits")
        if np.unpackbits(self._unusual[:, -1:], axis=1)[:, (len(self._usual) - 1) % 8 + 1 :].any():
            raise ValueError("there are bits of no language")

    def __len__(self) -> int:
        return len(self._unusual)

    def __getitem__(self, features: NDArray[np.intp]) -> NDArray[np.float32]:
        """(n, languages) float32."""
        marked = np.unpackbits(self._unusual[features], axis=1, count=len(self._usual)).view(bool)
        starts, counts = self._starts[features], self._starts[features + 1] - self._starts[features]
        places = np.arange(counts.sum()) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
        found = np.tile(self._usual, (len(features), 1))
        found[marked] = self._weights[places]
        return found


class _Compact(LanguageIdentifier):  # type: ignore[misc]  # the package has no types
    """py3langid's identifier with a walk of its own over the shared runs of transitions."""

    def __init__(self, tables: Mapping[str, _Table]) -> None:
        weights = _Weights(tables)
        rows, runs, states, features = (tables[name] for name in ("rows", "runs", "states", "features"))
        classes = json.loads(tables["classes"].tobytes())
        sound = (
            isinstance(classes, list)
            and all(isinstance(name, str) for name in classes)
            and len(classes) == len(tables["prior"]) == len(tables["usual"]) > 0
            and len(rows) == len(features) > states.max(initial=0)
            and (runs.shape[1], states.shape[1]) == (256 // _RUN, _RUN)
            and rows.max(initial=0) < len(runs)
            and runs.max(initial=0) < len(states)
            and -1 <= features.min(initial=-1) <= features.max(initial=-1) < len(weights)
        )
        if not sound:
            raise ValueError("the tables of the identifier contradict each other")
        super().__init__(weights, tables["prior"], classes, (), (), norm_probs=True, tk_row=())
        # Places are multiplied beforehand. Python's own arrays give plain numbers, quicker than numpy's.
        self._rows = array("I", (rows.astype(np.uint32) * np.uint32(runs.shape[1])).tobytes())
        self._runs = array("I", (runs.astype(np.uint32) * np.uint32(_RUN)).tobytes())
        self._states = array("I", states.tobytes())
        self._features = array("i", features.tobytes())

    def _raw_score(self, text: bytes) -> NDArray[np.float32]:
        """Raw scores of the languages, as the full tables give them."""
        rows, runs, states, features = self._rows, self._runs, self._states, self._features
        state, found = 0, []
        for letter in text:
            state = states[runs[rows[state] + (letter >> 4)] + (letter & 15)]
            found.append(features[state])
        seen = Counter(found)
        del seen[-1]
        if not seen:
            return np.full(len(self.nb_classes), 0.0, np.float32)
        return np.asarray(self._sparse_score(seen, self.nb_ptc))


def _full() -> Any:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _classify(identifier: Any) -> Identify:
    classify: Identify = identifier.classify
    return classify


def _narrowed(name: str, table: _Table) -> _Table:
    """A table in the type in which it is kept; a model that outgrew the type cannot be kept."""
    narrow = table.astype(_FORM[name][0])
    if not np.array_equal(narrow, table):
        raise ValueError(f"py3langid's {name} do not fit {_FORM[name][0].__name__}")
    return narrow
