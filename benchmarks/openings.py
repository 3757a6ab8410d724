"""What the fuzzer opens: the ways that outside bytes take into the service."""

import atexit
import hashlib
import json
import random
import shutil
import tempfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from mutations import MAX_CHARS, Spoiled, spoiled, spoiled_json
from onnx import TensorProto, helper
from stillwatch.v1 import classifier_pb2, examples_pb2

from classifier.bundle import FILES, MANIFEST, open_bundle
from classifier.config import Settings
from classifier.conversation import BodyFormat, body_text
from classifier.disguise import undisguise
from classifier.encoder import OnnxEncoder
from classifier.errors import StillwatchError
from classifier.serve import convert, convert_examples
from classifier.text import canonical, fold, source_span
from index.errors import IndexRoomError

_EXAMPLES = 12
_VOCABULARY = 1_200
_DIMENSIONS = 384


def read_request(_: Any, given: tuple[str, bytes]) -> None:
    """Decode a message and convert what is in it."""
    name, data = given
    message: Any = getattr(classifier_pb2, name, None) or getattr(examples_pb2, name)
    request = message.FromString(data)
    parts = [*getattr(request, "items", ()), *([request] if hasattr(request, "prompt") else [])]
    for part in parts:
        try:
            convert.prompt_text(part.prompt)
        except StillwatchError:
            continue
    for example in getattr(request, "examples", ()):
        try:
            convert_examples.example_in(example, "fuzzer")
        except (StillwatchError, IndexRoomError):
            continue
    if hasattr(request, "label"):
        convert_examples.label_filter(request.label)


def read_body(_: Any, given: bytes) -> None:
    """Take the text out of a request body: recognised, and as each API."""
    for api in (*BodyFormat, None):
        try:
            text = body_text(given, api)
        except StillwatchError:
            if api is None:
                raise
        else:
            if len(text) > 64 * len(given) + 4_096:
                raise AssertionError("a body grew without bound")


def read_text(ranks: Mapping[str, int], given: str) -> None:
    """Bring a prompt into its canonical form and undo its disguises."""
    form = canonical(given, MAX_CHARS)
    if fold(form) != form:
        raise AssertionError("the canonical form is not its own canonical form")
    first, last = source_span(given, 0, len(form), len(form))
    if not 0 <= first <= last <= len(given):
        raise AssertionError("a span is outside the text")
    found = undisguise(form, ranks)
    if found is not None and (not found.text or fold(found.text) != found.text):
        raise AssertionError("the undisguised form is empty or not canonical")


def open_mutated(bundle: tuple[Path, Mapping[str, bytes]], given: Spoiled) -> None:
    """Open a bundle one of whose files is changed."""
    folder, files = bundle
    source = random.Random(given.seed)  # noqa: S311
    data = files[given.name]
    as_json = given.name in (MANIFEST, "tokenizer.json") and source.random() < 0.6
    changed = spoiled_json(data, source) if as_json else spoiled(data, source)
    hashes = {given.name: hashlib.sha256(changed).hexdigest()}
    manifest = json.loads(files[MANIFEST])
    manifest["files"] |= hashes if given.rehash and given.name != MANIFEST else {}
    now = {**files, MANIFEST: json.dumps(manifest).encode(), given.name: changed}
    for name in {given.name, MANIFEST}:
        (folder / name).write_bytes(now[name])
    try:
        open_bundle(folder, threads=1)
    finally:
        for name in {given.name, MANIFEST}:
            (folder / name).write_bytes(files[name])


def prepare_ranks() -> Mapping[str, int]:
    """The words that the built bundle's tokenizer knows."""
    tokenizer = (Settings().bundle / "tokenizer.json").read_text(encoding="utf-8")
    return OnnxEncoder(_encoder(), tokenizer, threads=1).ranks


def prepare_bundle() -> tuple[Path, Mapping[str, bytes]]:
    """A bundle as the built one, but small enough to be opened a hundred times a second."""
    built = Settings().bundle
    manifest = json.loads((built / MANIFEST).read_bytes())
    rows = (built / "examples.jsonl").read_bytes().splitlines(keepends=True)[:_EXAMPLES]
    vectors = np.load(built / "examples.npy", allow_pickle=False)[:_EXAMPLES]
    buffer = BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(vectors, "<f4"), (1, 0))
    tokenizer = json.loads((built / "tokenizer.json").read_bytes())
    tokenizer["model"]["vocab"] = {
        word: number for word, number in tokenizer["model"]["vocab"].items() if number < _VOCABULARY
    }
    head = manifest["head"]
    files = {
        "encoder.onnx": _encoder(),
        "tokenizer.json": json.dumps(tokenizer).encode(),
        "head.onnx": _head(len(head["techniques"]), len(head["capabilities"])),
        "examples.jsonl": b"".join(rows),
        "examples.npy": buffer.getvalue(),
    }
    manifest["files"] = {name: hashlib.sha256(files[name]).hexdigest() for name in FILES}
    files[MANIFEST] = json.dumps(manifest).encode()
    folder = Path(tempfile.mkdtemp(prefix="stillwatch-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    open_bundle(folder, threads=1)
    return folder, files


def _encoder() -> bytes:
    """A graph with the encoder's inputs and output: the mean of a table's rows."""
    table = np.random.default_rng(0).standard_normal((8, _DIMENSIONS)).astype(np.float32)
    nodes = [
        helper.make_node("Mod", ["input_ids", "eight"], ["rows"]),
        helper.make_node("Gather", ["table", "rows"], ["gathered"]),
        helper.make_node("ReduceMean", ["gathered"], ["embedding"], axes=[1], keepdims=0),
    ]
    shape = ["n", "tokens"]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask")]
    tensors = [
        helper.make_tensor("table", TensorProto.FLOAT, table.shape, table.flatten()),
        helper.make_tensor("eight", TensorProto.INT64, [], [8]),
    ]
    output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", _DIMENSIONS])
    return _model(helper.make_graph(nodes, "encoder", inputs, [output], tensors))


def _head(techniques: int, capabilities: int) -> bytes:
    """A graph with the head's inputs and output: one layer over the features."""
    from classifier.evidence import width

    wide, labels = _DIMENSIONS + width(techniques, capabilities), 1 + techniques + capabilities
    inputs = [
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", wide]),
        helper.make_tensor_value_info("buckets", TensorProto.INT64, ["n", "terms"]),
        helper.make_tensor_value_info("counts", TensorProto.FLOAT, ["n", "terms"]),
    ]
    weights = helper.make_tensor("weights", TensorProto.FLOAT, [wide, labels], np.zeros(wide * labels, np.float32))
    nodes = [helper.make_node("MatMul", ["features", "weights"], ["logits"])]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", labels])
    return _model(helper.make_graph(nodes, "head", inputs, [output], [weights]))


def _model(graph: Any) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data
