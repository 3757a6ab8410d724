"""The compact encoder: nothing is lost when nothing is dropped, and the repair beats the bare cut."""

from pathlib import Path

import numpy as np
import pytest

from classifier.corpus import load_corpus
from classifier.encoder import Embeddings, OnnxEncoder
from classifier.export.build import DEFAULT_HEAD
from classifier.export.calibrate import load_ranges
from classifier.export.graph import fp32_graph, int8_graph
from classifier.export.weights import ENCODER, RANGES, ModelFiles, obtain, with_layers
from classifier.train import command
from classifier.train.compact import Shape, Weights, compacted

ROOT = Path(__file__).parent.parent
WHOLE = Shape(sources=tuple(range(6)), targets=tuple(range(6)), heads=12, neurons=1536)
SMALL = Shape(sources=(0, 2, 4, 5), targets=(1, 3, 4, 5), heads=6, neurons=512)


@pytest.fixture(scope="module")
def files() -> ModelFiles:
    return obtain(ROOT / "var" / "cache")


def embedded(weights: Weights, files: ModelFiles) -> tuple[Embeddings, list[list[int]]]:
    encoder = OnnxEncoder(fp32_graph(weights), files.tokenizer, threads=2)
    texts = [row.example.text for row in load_corpus()[::150]]
    sequences = [tokens.ids[:40] for tokens in encoder.tokenise(texts)]
    return encoder.encode(sequences), [encoder.framed(sequence) for sequence in sequences]


def test_the_whole_shape_is_the_published_model_on_the_texts_that_decide(files: ModelFiles) -> None:
    exact, sequences = embedded(files.tensors, files)
    found, _ = embedded(compacted(files.tensors, sequences[:24], WHOLE), files)
    assert ((found * exact).sum(axis=1))[:24].min() > 0.999


def test_the_repaired_cut_is_nearer_than_the_bare_one(files: ModelFiles) -> None:
    exact, sequences = embedded(files.tensors, files)
    small = compacted(files.tensors, sequences, SMALL)
    found, _ = embedded(small, files)
    bare = {name: value for name, value in files.tensors.items() if not name.startswith("encoder.layer.")}
    for number, source in enumerate(SMALL.sources):
        theirs = f"encoder.layer.{source}."
        bare |= {n.replace(theirs, f"encoder.layer.{number}."): v for n, v in files.tensors.items() if theirs in n}
    cut, _ = embedded(bare, files)
    assert (found * exact).sum(axis=1).mean() > (cut * exact).sum(axis=1).mean() + 0.02
    assert small["encoder.layer.0.intermediate.dense.weight"].shape == (512, 384)
    assert small["encoder.layer.3.attention.output.dense.weight"].shape == (384, 192)
    assert "encoder.layer.4.output.dense.weight" not in small


def test_the_same_texts_give_the_same_weights(files: ModelFiles) -> None:
    _, sequences = embedded(files.tensors, files)
    one, other = (compacted(files.tensors, sequences[:4], SMALL) for _ in range(2))
    assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("new", [False, True])
def test_training_keeps_the_default_encoder_or_makes_another(
    *, new: bool, files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []
    monkeypatch.setattr(command, "ACTIVATION_TEXTS", 12)
    monkeypatch.setattr(command, "RANGE_TEXTS", 4)
    monkeypatch.setattr("classifier.train.fit.fit_head", lambda rows, encoder, plan, **rest: encoder)
    monkeypatch.setattr("classifier.train.publish.write_head", lambda *given: written.extend(given[2:4]))
    command.train(tmp_path, ROOT / "var" / "cache", threads=2, new_encoder=new)
    layers, ranges = written
    assert ((DEFAULT_HEAD / ENCODER).read_bytes() == layers) is not new
    assert ((DEFAULT_HEAD / RANGES).read_bytes() == ranges) is not new
    tensors = with_layers(files, layers).tensors
    assert int8_graph(tensors, load_ranges(ranges, tensors))
