"""The bundle: one immutable directory with everything that scores, opened only if every hash fits."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from pydantic import ValidationError

from classifier.aggregate import Pooling
from classifier.durable import sync_folder
from classifier.encoder import Encoder, OnnxEncoder
from classifier.errors import BundleRejected
from classifier.evidence import width as evidence_width
from classifier.head import OnnxHead
from classifier.identifier import Identify, open_tables
from classifier.lexical import BUCKETS, LEXICAL_VERSION, Terms
from classifier.manifest import Manifest
from classifier.policy import Calibration, Thresholds
from classifier.scorer import Labels, Model
from classifier.text import CANONICAL_VERSION
from classifier.windows import WindowPlan
from index.errors import InvalidExample
from index.example import Example, Label

MANIFEST = "manifest.json"
FILES = ("encoder.onnx", "tokenizer.json", "head.onnx", "examples.jsonl", "examples.npy")
LANGUAGES = "languages.safetensors"
"""Older bundles have none; py3langid's own tables then tell languages."""
TRAINING = "training.jsonl"
"""What the head was trained on, without texts; only bundles that were trained on an example store have it."""
OPTIONAL = (LANGUAGES, TRAINING)
MAX_FILE_BYTES = 512 * 2**20
MAX_EXAMPLES = 1_000_000
_EXAMPLE_FIELDS = ("text", "label", "technique", "capabilities", "language", "source", "author", "note")
_DOMAINS = {"", "com.microsoft", "ai.onnx.ml"}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle.

    Attributes:
        manifest: Its table of contents.
        model: What scores.
        examples: The seed examples.
        vectors: Their embeddings, (n, d) float32 unit rows.
    """

    manifest: Manifest
    model: Model
    examples: tuple[Example, ...]
    vectors: NDArray[np.float32]


def open_bundle(folder: Path, *, threads: int, held: Bundle | None = None) -> Bundle:
    """Read and verify a bundle. Every byte that is used is the byte that was hashed.

    Args:
        folder: The bundle's directory.
        threads: Threads of one run of the encoder.
        held: A bundle that is open already with as many threads. Its encoder and examples are used again where the
            files are the same, byte for byte.

    Returns:
        The opened bundle.

    Raises:
        BundleRejected: When a file is missing, altered, or not allowed.
    """
    manifest, version = read_manifest(folder)
    files = {name: verified_file(folder, name, manifest.files[name]) for name in names_of(manifest)}
    head_card = manifest.head
    same = {name for name, digest in manifest.files.items() if held and held.manifest.files.get(name) == digest}
    graphs = {name: check_onnx(name, files[name]) for name in {"encoder.onnx", "head.onnx"} - same}
    encoder: Encoder
    if held and same >= {"encoder.onnx", "tokenizer.json"}:
        encoder = held.model.encoder
    else:
        encoder = _loaded(
            "encoder.onnx or tokenizer.json",
            lambda: OnnxEncoder(
                files["encoder.onnx"],
                files["tokenizer.json"].decode(),
                threads=threads,
                parsed=graphs.get("encoder.onnx"),
            ),
        )
    labels = Labels(head_card.techniques, head_card.capabilities)
    head = _loaded("head.onnx", lambda: _checked_head(files["head.onnx"], encoder.dimensions, labels))
    if len(head_card.calibration) != 1 + len(labels.capabilities):
        raise BundleRejected("the manifest's calibration does not fit its labels: build the bundle again")
    if (head_card.canonical_version, head_card.lexical_version) != (CANONICAL_VERSION, LEXICAL_VERSION):
        raise BundleRejected("the head was trained on another canonical text or hashing: train it with this version")
    graphs.clear()
    model = Model(
        version=version,
        encoder=encoder,
        head=head,
        labels=labels,
        calibration=tuple(Calibration(scale.slope, scale.offset) for scale in head_card.calibration),
        thresholds=_loaded("head", lambda: Thresholds(head_card.thresholds.review, head_card.thresholds.flag)),
        windows=_loaded(
            "head", lambda: WindowPlan(head_card.window_length, head_card.window_overlap, head_card.token_budget)
        ),
        pooling=Pooling(head_card.length_penalty, head_card.finer_offset),
        least_cosine=head_card.least_cosine,
        identify=_identifier(files, held.model.identify if held and LANGUAGES in same else None),
    )
    examples = held.examples if held and "examples.jsonl" in same else parse_examples(files["examples.jsonl"])
    vectors = _vectors(files["examples.npy"], (len(examples), encoder.dimensions))
    return Bundle(manifest, model, examples, vectors)


def read_manifest(folder: Path) -> tuple[Manifest, str]:
    """Read the manifest without opening the files it names.

    Args:
        folder: The bundle's directory.

    Returns:
        The manifest, and the bundle's full version: "<version>+<head of the manifest's SHA-256>".

    Raises:
        BundleRejected: When there is no valid manifest.
    """
    data = _bytes(folder, MANIFEST)
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "its form"
        raise BundleRejected(f"{MANIFEST} is not valid at {where}: build the bundle again") from None
    if set(manifest.files) - set(OPTIONAL) != set(FILES):
        raise BundleRejected(f"{MANIFEST} must name exactly {', '.join(FILES)}: build the bundle again")
    return manifest, f"{manifest.version}+{hashlib.sha256(data).hexdigest()[:12]}"


def names_of(manifest: Manifest) -> tuple[str, ...]:
    """A bundle's files besides its manifest, in the order in which they are verified."""
    return (*FILES, *(name for name in OPTIONAL if name in manifest.files))


def write_bundle(home: Path, card: Mapping[str, object], files: Mapping[str, bytes], *, current: bool = True) -> Path:
    """Write a bundle beside the others and point "current" at it; neither step can be seen half done.

    Args:
        home: The folder of all bundles.
        card: The manifest without "files".
        files: The contents of every file in FILES, and of those in OPTIONAL that there are.
        current: Whether it becomes the current bundle.

    Returns:
        The bundle's directory.

    Raises:
        BundleRejected: When a file is missing, or one is named that no bundle has.
    """
    if set(files) - set(OPTIONAL) != set(FILES):
        raise BundleRejected(f"a bundle holds exactly {', '.join(FILES)}")
    home.mkdir(parents=True, exist_ok=True)
    manifest = Manifest.model_validate(
        {**card, "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}}
    )
    data = (
        json.dumps(manifest.model_dump(mode="json", exclude_none=True), indent=2, ensure_ascii=False) + "\n"
    ).encode()
    folder = home / f"{manifest.version}-{hashlib.sha256(data).hexdigest()[:12]}"
    staging = Path(tempfile.mkdtemp(prefix=".building-", dir=home))
    try:
        for name, content in {**files, MANIFEST: data}.items():
            with (staging / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        staging.chmod(0o755)
        if not _intact(folder, manifest):
            shutil.rmtree(folder, ignore_errors=True)  # it could not be opened anyway
            staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    if current:
        point(home, folder.name)
    return folder


def point(home: Path, name: str) -> None:
    """Make a bundle the current one, durably and in one step; servers that watch follow.

    Args:
        home: The folder of all bundles.
        name: The bundle's folder in it.
    """
    pointer = home / "current"
    fresh = pointer.with_name(f".{pointer.name}-{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(name)
    fresh.replace(pointer)
    sync_folder(home)


def parse_examples(data: bytes) -> tuple[Example, ...]:
    """Read the examples of a bundle.

    Args:
        data: JSON Lines.

    Returns:
        The examples, in order.

    Raises:
        BundleRejected: When a row is not an example.
    """
    examples = []
    for number, line in enumerate(data.splitlines(), 1):
        if number > MAX_EXAMPLES:
            raise BundleRejected(f"examples.jsonl has over {MAX_EXAMPLES} rows: build a smaller bundle")
        try:
            examples.append(_example(json.loads(line)))
        except (ValueError, TypeError, KeyError, RecursionError, InvalidExample) as error:
            kind = type(error).__name__
            raise BundleRejected(
                f"examples.jsonl, row {number} is no example ({kind}): build the bundle again"
            ) from None
    return tuple(examples)


def dump_examples(examples: tuple[Example, ...]) -> bytes:
    """Write examples as parse_examples reads them."""
    rows = ({name: getattr(example, name) for name in _EXAMPLE_FIELDS} for example in examples)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def check_onnx(name: str, data: bytes) -> onnx.ModelProto:
    """Refuse graphs that reach outside their file or use operators of unknown domains.

    Args:
        name: The file's name, for the message.
        data: The serialised model.

    Returns:
        The model.

    Raises:
        BundleRejected: When the graph is not allowed.
    """
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # noqa: BLE001  # protobuf's and onnx's own errors share no parent
        raise BundleRejected(f"{name} is no ONNX model ({type(error).__name__}): build the bundle again") from None
    graph = model.graph
    attributes = [attribute for node in graph.node for attribute in node.attribute]
    domains = {opset.domain for opset in model.opset_import} | {node.domain for node in graph.node}
    if domains - _DOMAINS:
        raise BundleRejected(f"{name} uses operators of a domain that is not allowed: build the bundle again")
    sparse = any(a.HasField("sparse_tensor") or a.sparse_tensors for a in attributes)
    if graph.sparse_initializer or sparse or model.functions or model.training_info:
        raise BundleRejected(f"{name} holds sparse initialisers, functions or training steps, which are not allowed")
    tensors = [*graph.initializer, *(a.t for a in attributes), *(t for a in attributes for t in a.tensors)]
    if any(tensor.external_data or tensor.data_location for tensor in tensors):
        raise BundleRejected(f"{name} keeps weights in another file, which is not allowed")
    if any(attribute.HasField("g") or attribute.graphs for attribute in attributes):
        raise BundleRejected(f"{name} holds nested graphs, which are not allowed")
    return model


def _loaded(name: str, load: Callable[[], T]) -> T:
    """Load a part whose hash fits; whatever a library makes of wrong contents becomes one error."""
    try:
        return load()
    except BundleRejected:
        raise
    except Exception as error:  # noqa: BLE001  # tokenizers and onnxruntime raise errors of their own
        raise BundleRejected(f"{name} cannot be used ({type(error).__name__}): build the bundle again") from None


def _checked_head(data: bytes, dimensions: int, labels: Labels) -> OnnxHead:
    """Open the head and see that it takes and gives what the scorer's graph needs."""
    head = OnnxHead(data)
    width = dimensions + evidence_width(len(labels.techniques), len(labels.capabilities))
    last = Terms(np.array([[BUCKETS - 1]]), np.ones((1, 1), np.float32))
    logits = head.logits(np.zeros((1, width), np.float32), last)
    if logits.shape != (1, 1 + len(labels.techniques) + len(labels.capabilities)) or not np.isfinite(logits).all():
        raise BundleRejected("head.onnx does not give the logits that the manifest names: build the bundle again")
    return head


def _identifier(files: Mapping[str, bytes], held: Identify | None) -> Identify | None:
    if held is not None or LANGUAGES not in files:
        return held
    return _loaded(LANGUAGES, lambda: open_tables(files[LANGUAGES]))


def _intact(folder: Path, manifest: Manifest) -> bool:
    try:
        return (
            all(verified_file(folder, name, manifest.files[name]) for name in names_of(manifest))
            and read_manifest(folder) is not None
        )
    except BundleRejected:
        return False


def _example(row: dict[str, object]) -> Example:
    if set(row) != set(_EXAMPLE_FIELDS) or not isinstance(row["capabilities"], list):
        raise ValueError("not the fields of an example")
    texts = {name: value for name, value in row.items() if name not in ("label", "technique", "capabilities")}
    if not all(isinstance(value, str) for value in (*texts.values(), *row["capabilities"])):
        raise TypeError("a field is no text")
    technique = row["technique"]
    return Example(
        text=str(row["text"]),
        label=Label(str(row["label"])),
        technique=None if technique is None else str(technique),
        capabilities=tuple(row["capabilities"]),
        language=str(row["language"]),
        source=str(row["source"]),
        author=str(row["author"]),
        note=str(row["note"]),
    )


def verified_file(folder: Path, name: str, sha256: str) -> bytes:
    """Read a bundle's file.

    Args:
        folder: The bundle's directory.
        name: The file.
        sha256: What the manifest says of it.

    Returns:
        Its bytes.

    Raises:
        BundleRejected: When it cannot be read, or has another hash.
    """
    data = _bytes(folder, name)
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise BundleRejected(
            f"{name} has SHA-256 {found[:12]}..., the manifest says {sha256[:12]}...: build the bundle again"
        )
    return data


def _bytes(folder: Path, name: str) -> bytes:
    path = folder / name
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise BundleRejected(
            f"the bundle {folder} has no readable {name} ({error.strerror}): run  stillwatch bundle build"
        ) from None
    if len(data) > MAX_FILE_BYTES:
        raise BundleRejected(f"{name} is over {MAX_FILE_BYTES} bytes: this is no bundle of Stillwatch's")
    return data


def _vectors(data: bytes, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Read an .npy file by comparing its header with the one it must have; nothing in it is interpreted."""
    header = BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    expected = header.getvalue()
    if not data.startswith(expected) or len(data) != len(expected) + 4 * shape[0] * shape[1]:
        raise BundleRejected("examples.npy does not fit examples.jsonl: build the bundle again")
    vectors = np.frombuffer(data, "<f4", offset=len(expected)).reshape(shape)
    if not np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3):
        raise BundleRejected("examples.npy holds rows that are not of unit length: build the bundle again")
    return vectors
