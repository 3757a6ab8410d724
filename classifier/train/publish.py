"""Writes a fitted head as the files that a bundle is built from."""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from classifier.corpus import SeedRow
from classifier.errors import BundleRejected
from classifier.head import OnnxHead
from classifier.manifest import HeadCard
from classifier.text import CANONICAL_VERSION
from classifier.train.fit import FittedHead
from classifier.windows import WindowPlan
from index.example import content_fingerprint

PARITY = 1e-4


def head_graph(head: FittedHead) -> bytes:
    """The head as ONNX: "features" (n, width) float32 to "logits" (n, labels) float32."""
    width, labels = head.weights.shape
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", width])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", labels])
    constants = [numpy_helper.from_array(head.weights, "weights"), numpy_helper.from_array(head.bias, "bias")]
    node = helper.make_node("Gemm", ["features", "weights", "bias"], ["logits"])
    graph = helper.make_graph([node], "head", [features], [logits], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def write_head(folder: Path, head: FittedHead, rows: list[SeedRow], plan: WindowPlan, seed: int) -> HeadCard:
    """Write head.onnx and head.json, once the ONNX form gives the fitted head's logits.

    Args:
        folder: Where to write.
        head: The fitted head.
        rows: What it was fitted on.
        plan: How prompts are cut.
        seed: Training's seed.

    Returns:
        What head.json says.

    Raises:
        BundleRejected: When the exported graph's logits differ from the fitted head's.
    """
    data = head_graph(head)
    probe = np.random.default_rng(seed).normal(0, 0.3, (64, head.weights.shape[0])).astype(np.float32)
    apart = float(np.abs(OnnxHead(data).logits(probe) - (probe @ head.weights + head.bias)).max())
    if apart > PARITY:
        raise BundleRejected(f"the exported head is off by {apart:.2g}, at most {PARITY:.0e} is allowed: not written")
    card = HeadCard.model_validate(
        {
            "techniques": head.labels.techniques,
            "capabilities": head.labels.capabilities,
            "calibration": [{"slope": round(a, 6), "offset": round(b, 6)} for a, b in head.calibration.tolist()],
            "thresholds": {"review": round(head.review, 4), "flag": round(head.flag, 4)},
            "window_length": plan.length,
            "window_overlap": plan.overlap,
            "token_budget": plan.budget,
            "canonical_version": CANONICAL_VERSION,
            "corpus_sha256": content_fingerprint(row.example for row in rows),
            "corpus_size": len(rows),
            "seed": seed,
            "report": {**head.report, "onnx_largest_difference": apart},
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "head.onnx").write_bytes(data)
    (folder / "head.json").write_text(json.dumps(card.model_dump(mode="json"), indent=2) + "\n", encoding="utf-8")
    return card
