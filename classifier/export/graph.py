"""MiniLM's ONNX graph, written node by node: fused attention, pooling and normalisation inside, fp32 or int8.

The int8 form quantises the input of every matrix product with a *fixed* scale, found beforehand on calibration texts,
so that an embedding does not depend on what else is in the batch. Before that each input channel is divided by a
smoothing factor, which moves its outliers into the weights (see docs/decisions/0003-static-int8-encoder.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Tensor = NDArray[np.generic]
Floats = NDArray[np.float32]
Ranges = Mapping[str, NDArray[np.float32]]
"""For each matrix product the lowest and highest value of each input channel: (2, channels) float32."""

DIMENSIONS = 384
_HEAD_SIZE = 32
_EPSILON = 1e-12
_SMOOTHING = 0.85
_LARGEST_PAIR = 127.5
"""Of two neighbouring weights together, before rounding: 255 times 128 just fits into 16 bits."""
_MICROSOFT = "com.microsoft"


def _weight_scales(weight: Floats) -> Floats:
    """The size of one step of each output channel's 8-bit weights.

    Processors without VNNI add the products of two neighbouring input channels in 16 bits, and cut off what does not fit.
    So no two neighbours may be large together: then every processor finds the same sums.

    Args:
        weight: (inputs, outputs) float32.

    Returns:
        (outputs,) float32.
    """
    sizes = np.abs(weight)
    pairs = np.add.reduceat(sizes, np.arange(0, len(sizes), 2), axis=0)
    steps = np.maximum(sizes.max(axis=0) / 127, pairs.max(axis=0) / _LARGEST_PAIR)
    return np.asarray(np.maximum(steps, 1e-9), np.float32)


def products(weights: Mapping[str, Floats]) -> list[str]:
    """The names of the matrix products, in the graph's order."""
    return [f"layer{layer}.{name}" for layer in range(_layers(weights)) for name in ("qkv", "out", "up", "down")]


def _layers(weights: Mapping[str, Floats]) -> int:
    return sum(name.endswith(".attention.self.query.weight") for name in weights)


def fp32_graph(weights: Mapping[str, Floats]) -> bytes:
    """The exact graph.

    Args:
        weights: The published tensors.

    Returns:
        The serialised model: input_ids and attention_mask (n, t) int64 to embedding (n, 384) float32, unit rows.
    """
    return _Builder(weights).finish()


def int8_graph(weights: Mapping[str, Floats], ranges: Ranges) -> bytes:
    """The graph with 8-bit weights and 8-bit inputs to every matrix product.

    Args:
        weights: The published tensors.
        ranges: Calibrated input ranges of every product.

    Returns:
        The serialised model, of the same inputs and outputs as the fp32 one.
    """
    return _Builder(weights, ranges).finish()


def probe_graph(weights: Mapping[str, Floats]) -> bytes:
    """The exact graph with two more outputs for each product: "<product>.low" and "<product>.high", (channels,).

    Args:
        weights: The published tensors.

    Returns:
        The serialised model.
    """
    return _Builder(weights, probe=True).finish()


@dataclass
class _Builder:
    """Writes the graph layer by layer; a method appends nodes and returns the name of what they make."""

    weights: Mapping[str, Floats]
    ranges: Ranges | None = None
    probe: bool = False
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)

    def finish(self) -> bytes:
        shape = ["n", "t"]
        inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, shape) for n in ("input_ids", "attention_mask")]
        self.outputs.append(helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", DIMENSIONS]))
        mask = self.node("Cast", ["attention_mask"], to=TensorProto.INT32)
        hidden = self.embeddings()
        for layer in range(_layers(self.weights)):
            hidden = self.layer(layer, hidden, mask)
        self.pooled(hidden)
        graph = helper.make_graph(self.nodes, "minilm", inputs, self.outputs, list(self.constants.values()))
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid(_MICROSOFT, 1)]
        data: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
        return data

    def embeddings(self) -> str:
        # Every token is of type 0, so that type's row is folded into the positions.
        positions = self["embeddings.position_embeddings.weight"] + self["embeddings.token_type_embeddings.weight"][0]
        ids = self.node("Cast", ["input_ids"], to=TensorProto.INT32)
        tables = [
            self.constant("words", self["embeddings.word_embeddings.weight"]),
            self.constant("positions", positions),
            "",
            *self.norm("embeddings.LayerNorm"),
        ]
        return self.node(
            "EmbedLayerNormalization",
            [ids, "", *tables],
            ["embedded", "embedded_mask"],
            domain=_MICROSOFT,
            epsilon=_EPSILON,
        )

    def layer(self, number: int, hidden: str, mask: str) -> str:
        name, published = f"layer{number}", f"encoder.layer.{number}"
        attended = self.attention(f"{name}.qkv", f"{name}.out", f"{published}.attention", hidden, mask)
        hidden = self.add_and_norm(f"{name}.out", f"{published}.attention.output", attended, hidden)
        activated = self.node("Gelu", [self.dense(f"{name}.up", f"{published}.intermediate.dense", hidden)])
        return self.add_and_norm(f"{name}.down", f"{published}.output", activated, hidden)

    def attention(self, name: str, following: str, published: str, hidden: str, mask: str) -> str:
        self.watch(name, hidden)
        parts = [f"{published}.self.{part}" for part in ("query", "key", "value")]
        weight = np.concatenate([self[f"{part}.weight"].T for part in parts], axis=1)
        bias = np.concatenate([self[f"{part}.bias"] for part in parts])
        width = weight.shape[1] // 3
        heads = width // _HEAD_SIZE
        if self.ranges is None:
            inputs = [hidden, self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", bias), mask]
            return self.node("Attention", inputs, domain=_MICROSOFT, num_heads=heads)
        # Attention mixes rows, not channels: the output's smoothing can be done in the values' weights, for nothing.
        factors = self.smoothing(following, self[f"{published}.output.dense.weight"].T)
        weight[:, 2 * width :] /= factors
        bias[2 * width :] /= factors
        quantised, weights, scales = self.quantised(name, weight, hidden)
        zero = self.constant(f"{name}.weight_zero", np.zeros(3 * width, np.int8))
        inputs = [quantised, weights, self.constant(f"{name}.bias", bias), f"{name}.scale", scales, mask]
        return self.node("QAttention", [*inputs, f"{name}.zero", zero], domain=_MICROSOFT, num_heads=heads)

    def dense(self, name: str, published: str, value: str, *, centred: bool = False) -> str:
        self.watch(name, value)
        weight, bias = self[f"{published}.weight"].T, self[f"{published}.bias"]
        if centred:
            weight, bias = weight - weight.mean(axis=1, keepdims=True), bias - bias.mean()
        offset = self.constant(f"{name}.bias", bias)
        if self.ranges is None:
            product = self.node("MatMul", [value, self.constant(f"{name}.weight", weight)])
            return self.node("Add", [product, offset])
        quantised, weights, scales = self.quantised(name, weight, value, smoothed=name.endswith(".out"))
        inputs = [quantised, weights, f"{name}.scale", scales, f"{name}.zero", "", offset]
        return self.node("MatMulIntegerToFloat", inputs, domain=_MICROSOFT)

    def quantised(self, name: str, weight: Floats, value: str, *, smoothed: bool = False) -> tuple[str, str, str]:
        """Quantise a product's input (uint8, one scale) and weight (int8, a scale for each output channel)."""
        assert self.ranges is not None
        factors = self.smoothing(name, weight)
        low = min(0.0, float((self.ranges[name][0] / factors).min()))
        high = max(0.0, float((self.ranges[name][1] / factors).max()))
        scale = np.float32(max(high - low, 1e-6) / 255)
        scaled = weight * factors[:, None]
        scales = _weight_scales(scaled)
        whole = np.round(scaled / scales).clip(-127, 127).astype(np.int8)
        if not smoothed:
            value = self.node("Mul", [value, self.constant(f"{name}.smooth", (1 / factors).astype(np.float32))])
        grid = [self.constant(f"{name}.scale", scale), self.constant(f"{name}.zero", np.uint8(round(-low / scale)))]
        value = self.node("QuantizeLinear", [value, *grid])
        return value, self.constant(f"{name}.weight", whole), self.constant(f"{name}.scales", scales)

    def smoothing(self, name: str, weight: Floats) -> Floats:
        """How much of each input channel's size is moved into the weights: (channels,) float32."""
        assert self.ranges is not None
        reach = np.maximum(np.abs(self.ranges[name]).max(axis=0), 1e-5)
        factors = reach**_SMOOTHING / np.maximum(np.abs(weight).max(axis=1), 1e-5) ** (1 - _SMOOTHING)
        return np.asarray(factors, np.float32)

    def add_and_norm(self, name: str, published: str, value: str, hidden: str) -> str:
        """A product, added to what went into its block, and normalised.

        Layer normalisation is root-mean-square normalisation of centred values, whose kernel is four times as fast:
        the product's weights are centred beforehand, and the other summand here.
        """
        product = self.dense(name, f"{published}.dense", value, centred=True)
        mean = self.node("ReduceMean", [hidden, self.constant("channels", np.array([2], np.int64))], keepdims=1)
        gain, offset = self.norm(f"{published}.LayerNorm")
        inputs = [product, self.node("Sub", [hidden, mean]), gain]
        scaled = self.node("SkipSimplifiedLayerNormalization", inputs, domain=_MICROSOFT, epsilon=_EPSILON)
        return self.node("Add", [scaled, offset])

    def norm(self, published: str) -> list[str]:
        return [self.constant(f"{published}.{part}", self[f"{published}.{part}"]) for part in ("weight", "bias")]

    def pooled(self, hidden: str) -> None:
        # The sum over the real tokens points where their mean does, and only the direction is kept.
        mask = self.node("Cast", ["attention_mask"], to=TensorProto.FLOAT)
        axis = self.constant("axis", np.array([1], np.int64))
        total = self.node("MatMul", [self.node("Unsqueeze", [mask, axis]), hidden])
        total = self.node("Squeeze", [total, axis])
        self.node("LpNormalization", [total], ["embedding"], axis=1, p=2)

    def watch(self, name: str, value: str) -> None:
        if not self.probe:
            return
        axes = self.constant("rows", np.array([0, 1], np.int64))
        for operator, end in (("ReduceMin", "low"), ("ReduceMax", "high")):
            output = self.node(operator, [value, axes], [f"{name}.{end}"], keepdims=0)
            self.outputs.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))

    def node(
        self, operator: str, inputs: list[str], outputs: list[str] | None = None, domain: str = "", **attributes: Any
    ) -> str:
        outputs = outputs or [f"value{len(self.nodes)}"]
        self.nodes.append(helper.make_node(operator, inputs, outputs, domain=domain, **attributes))
        return outputs[0]

    def constant(self, name: str, value: Tensor | np.generic) -> str:
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value).reshape(np.shape(value)), name)
        return name

    def __getitem__(self, name: str) -> Floats:
        return self.weights[name]
