"""The head: embedding, neighbour evidence and words to one logit for each label."""

from typing import Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Head(Protocol):
    """Turns features into logits. Safe to call from any thread."""

    def logits(self, features: Floats, bags: Floats) -> Floats:
        """(n, labels) float32 logits: extraction, techniques, capabilities.

        Args:
            features: (n, d) float32, embedding and neighbour evidence.
            bags: (n, buckets) float32, lexical evidence.

        Returns:
            The logits.
        """


class OnnxHead:
    """A head in ONNX Runtime."""

    def __init__(self, model: bytes) -> None:
        """Load the graph: "features" (n, d) and "bags" (n, buckets) to "logits" (n, labels)."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def logits(self, features: Floats, bags: Floats) -> Floats:
        """(n, labels) float32 logits of (n, d) features and (n, buckets) bags."""
        (values,) = self._session.run(["logits"], {"features": features, "bags": bags})
        return np.asarray(values, np.float32)
