"""The encoder: token ids to unit embeddings."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime as ort
from numpy.typing import NDArray
from tokenizers import Tokenizer

from classifier.session import open_session
from classifier.words import UNSEEN, LateSpans, Words, named

Embeddings = NDArray[np.float32]
TOKENS_PER_RUN = 256
"""Padded tokens of one run of the graph: the activations stay in a core's cache, and the cores' shares come out even."""

_SHARED_NUMBERS = 2**21


@dataclass(frozen=True, slots=True)
class Tokens:
    """A text as tokens, without special ones.

    Attributes:
        ids: Token ids; what the vocabulary lacks has a number from UNSEEN on, so that words can be told apart.
        spans: For each token its half-open range of code points in the text.
    """

    ids: list[int]
    spans: Sequence[tuple[int, int]]


class Encoder(Protocol):
    """Turns texts into tokens, and tokens into embeddings. Safe to call from any thread."""

    @property
    def dimensions(self) -> int:
        """How long an embedding is."""

    @property
    def fingerprint(self) -> str:
        """A name that differs when the embeddings would."""

    @property
    def ranks(self) -> Mapping[str, int]:
        """The whole words that the tokenizer knows, lower-case, with their rank by frequency."""

    def tokenise(self, texts: Sequence[str]) -> list[Tokens]:
        """The texts' tokens, none cut off."""

    def encode(self, sequences: Sequence[Sequence[int]]) -> Embeddings:
        """(n, dimensions) float32 unit rows of token sequences that each fit one window."""


class HashEncoder:
    """A deterministic encoder without a model, for tests: texts with the same words stand near each other."""

    dimensions = 384
    fingerprint = "hash-1"
    ranks: Mapping[str, int] = {}

    def tokenise(self, texts: Sequence[str]) -> list[Tokens]:
        """One token for each word; its id is a hash of the word."""
        return [self._tokens(text) for text in texts]

    def encode(self, sequences: Sequence[Sequence[int]]) -> Embeddings:
        """Each id votes for one random direction; the sum is brought to unit length."""
        rows = np.zeros((len(sequences), self.dimensions), np.float32)
        for number, sequence in enumerate(sequences):
            for token in sequence:
                rows[number] += np.random.default_rng(token).standard_normal(self.dimensions, np.float32)
        return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)

    def _tokens(self, text: str) -> Tokens:
        ids, spans, start = [], [], 0
        for word in text.split():
            start = text.index(word, start)
            ids.append(int.from_bytes(hashlib.sha256(word.lower().encode()).digest()[:4]))
            spans.append((start, start + len(word)))
            start += len(word)
        return Tokens(ids, spans)


class OnnxEncoder:
    """MiniLM in ONNX Runtime."""

    def __init__(self, model: bytes, tokenizer: str, *, threads: int, parsed: onnx.ModelProto | None = None) -> None:
        """Load the graph and the tokenizer.

        Args:
            model: The ONNX graph: ids and mask to (n, d) unit rows. Already verified by the bundle.
            tokenizer: The JSON of a `tokenizers` tokenizer.
            threads: How many threads encode, the caller's among them.
            parsed: The same graph, if it has been parsed already.
        """
        # Several runs go side by side, each on one core; a lone one is shared by all.
        self._shared = _large_initialisers(parsed or onnx.load_model_from_string(model))
        self._session = _session(model, threads, self._shared)
        self._narrow = _session(model, 1, self._shared) if threads > 1 else self._session
        self._helpers = ThreadPoolExecutor(threads - 1, "encode") if threads > 1 else None
        self._threads = threads
        self._tokenizer = Tokenizer.from_str(tokenizer)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._words = Words(self._tokenizer)
        self._first, self._last = _specials(self._tokenizer)
        self.ranks: Mapping[str, int] = _ranks(self._tokenizer)
        self.dimensions: int = self._session.get_outputs()[0].shape[1]
        digest = hashlib.sha256(model)
        digest.update(tokenizer.encode())
        self.fingerprint: str = digest.hexdigest()[:16]

    def tokenise(self, texts: Sequence[str]) -> list[Tokens]:
        """The texts' tokens, none cut off, without special tokens."""
        plain = [self._words.ids(text) for text in texts]
        others = [text for text, ids in zip(texts, plain, strict=True) if ids is None]
        encodings = iter(self._tokenizer.encode_batch(others, add_special_tokens=False) if others else ())
        found = []
        for text, ids in zip(texts, plain, strict=True):
            if ids is None:
                encoding = next(encodings)
                spans = encoding.offsets
                found.append(Tokens(named(encoding.ids, spans, text, self._words.unknown), spans))
            else:
                found.append(Tokens(ids, LateSpans(self._tokenizer, text, len(ids))))
        return found

    def encode(self, sequences: Sequence[Sequence[int]]) -> Embeddings:
        """Embed token sequences, shortest first, in runs of a bounded number of padded tokens.

        Args:
            sequences: Token ids without special tokens, at most 510 each.

        Returns:
            (n, d) float32 unit rows, in the order given. A row does not depend on its neighbours in the batch but
            for the rounding of float32 sums.
        """
        rows = np.zeros((len(sequences), self.dimensions), np.float32)
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
        pending: list[list[int]] = []
        start = 0
        while start < len(order):
            end = start + 1
            while end < len(order) and (end + 1 - start) * (len(sequences[order[end]]) + 2) <= TOKENS_PER_RUN:
                end += 1
            pending.append(order[start:end])
            start = end
        session = self._session if len(pending) == 1 else self._narrow

        def work() -> None:
            while pending:
                try:
                    chosen = pending.pop()  # the longest first
                except IndexError:  # another thread was quicker
                    return
                rows[chosen] = self._run(session, [sequences[i] for i in chosen])

        helped = (
            [self._helpers.submit(work) for _ in range(min(self._threads, len(pending)) - 1)] if self._helpers else []
        )
        try:
            work()
        finally:
            for help_ in helped:
                if not help_.cancel():  # what has not begun is not waited for: nothing is left to do
                    help_.result()
        return rows

    def framed(self, sequence: Sequence[int]) -> list[int]:
        """What the model takes: a token sequence with the special tokens before and after it."""
        unknown = self._words.unknown
        return [self._first, *(token if token < UNSEEN else unknown for token in sequence), self._last]

    def _run(self, session: ort.InferenceSession, sequences: Sequence[Sequence[int]]) -> Embeddings:
        longest = max(map(len, sequences)) + 2
        ids = np.zeros((len(sequences), longest), np.int64)
        mask = np.zeros((len(sequences), longest), np.int64)
        for row, sequence in enumerate(sequences):
            framed = self.framed(sequence)
            ids[row, : len(framed)] = framed
            mask[row, : len(framed)] = 1
        (rows,) = session.run(["embedding"], {"input_ids": ids, "attention_mask": mask})
        return np.asarray(rows, np.float32)


def _large_initialisers(model: onnx.ModelProto) -> dict[str, ort.OrtValue]:
    """What both sessions hold once between them: the table of token embeddings, most of the file."""
    # Its shape tells how large a tensor is; to ask for its bytes would copy them.
    tensors = model.graph.initializer
    return {
        tensor.name: ort.OrtValue.ortvalue_from_numpy(onnx.numpy_helper.to_array(tensor))
        for tensor in tensors
        if math.prod(tensor.dims) >= _SHARED_NUMBERS
    }


def _session(model: bytes, threads: int, shared: Mapping[str, ort.OrtValue]) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    for name, value in shared.items():
        options.add_initializer(name, value)
    # A thread that spins after its run takes the core from the server's own work, and gains a lone run next to nothing.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return open_session(model, options)


def _specials(tokenizer: Tokenizer) -> tuple[int, int]:
    ids = tokenizer.encode("").ids
    if len(ids) != 2:
        raise ValueError("the tokenizer must put one token before a text and one after it")
    return ids[0], ids[1]


def _ranks(tokenizer: Tokenizer) -> Mapping[str, int]:
    """Ids of whole words ascend with their rarity in this vocabulary; the first ones are marks and single letters."""
    words = ((word, number) for word, number in tokenizer.get_vocab().items() if word.isascii() and word.isalpha())
    found = sorted((number, word) for word, number in words if len(word) > 1 or word in "ai")
    return {word: rank for rank, (_, word) in enumerate(found)}
