"""The head: embedding and neighbour evidence to one logit for each label."""

from typing import Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Head(Protocol):
    """Turns features into logits. Safe to call from any thread."""

    def logits(self, features: Floats) -> Floats:
        """(n, labels) float32 logits of (n, d) float32 features: extraction, techniques, capabilities."""


class OnnxHead:
    """A head in ONNX Runtime."""

    def __init__(self, model: bytes) -> None:
        """Load the graph: "features" (n, d) to "logits" (n, labels). Already verified by the bundle."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.width: int = self._session.get_inputs()[0].shape[1]
        self.labels: int = self._session.get_outputs()[0].shape[1]

    def logits(self, features: Floats) -> Floats:
        """(n, labels) float32 logits of (n, width) float32 features."""
        (values,) = self._session.run(["logits"], {"features": features})
        return np.asarray(values, np.float32)
