"""The head: embedding, neighbour evidence and words to one logit for each label."""

from typing import Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from classifier.lexical import Terms
from classifier.session import open_session

Floats = NDArray[np.float32]


class Head(Protocol):
    """Turns features into logits. Safe to call from any thread."""

    def logits(self, features: Floats, terms: Terms) -> Floats:
        """(n, labels) float32 logits: extraction, techniques, capabilities.

        Args:
            features: (n, d) float32, embedding and neighbour evidence.
            terms: Lexical evidence of n windows.

        Returns:
            The logits.
        """


class OnnxHead:
    """A head in ONNX Runtime."""

    def __init__(self, model: bytes) -> None:
        """Load the graph: "features" (n, d), "buckets" and "counts" (n, terms) to "logits" (n, labels)."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = open_session(model, options)

    def logits(self, features: Floats, terms: Terms) -> Floats:
        """(n, labels) float32 logits of (n, d) features and the terms of n windows."""
        inputs = {"features": features, "buckets": terms.buckets, "counts": terms.counts}
        (values,) = self._session.run(["logits"], inputs)
        return np.asarray(values, np.float32)
