"""What a bundle's files hold is refused where it does harm or does not fit, though every hash is right."""

import os
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper
from safetensors.numpy import save
from spoiling import amend, linked_copy, pristine_copy, swap

from classifier.bundle import LANGUAGES, Bundle, check_onnx, dump_examples, open_bundle, parse_examples
from classifier.errors import BundleRejected
from classifier.identifier import packaged
from classifier.scorer import Scorer
from index.example import Example, Label
from index.live import empty_snapshot


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built bundle in a folder that nobody rebuilds."""
    return pristine_copy(tmp_path_factory.mktemp("pristine"))


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    """A bundle that a test may spoil; its files are links, so they are replaced and never written into."""
    return linked_copy(pristine, tmp_path / "bundle")


def npy(array: NDArray[Any], *, allow_pickle: bool = False) -> bytes:
    buffer = BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


def model(*nodes: onnx.NodeProto, domains: tuple[str, ...] = ("",)) -> onnx.ModelProto:
    """A model from "x" to "y", by default one that only hands on its input."""
    graph = helper.make_graph(
        list(nodes) or [helper.make_node("Identity", ["x"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        [helper.make_tensor("w", TensorProto.FLOAT, [1], [0.0])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(domain, 1) for domain in domains])


@pytest.mark.parametrize("name", ["encoder.onnx", "head.onnx"])
def test_a_graph_that_is_not_allowed_is_refused_though_its_hash_fits(folder: Path, name: str) -> None:
    swap(folder, name, model(domains=("", "com.example")).SerializeToString())
    with pytest.raises(BundleRejected, match=rf"^{name} uses operators of a domain"):
        open_bundle(folder, threads=1)


def without_languages(manifest: dict[str, Any]) -> None:
    del manifest["files"][LANGUAGES]


def test_an_older_bundle_without_languages_tells_them_alike(folder: Path, bundle: Bundle) -> None:
    amend(folder, without_languages)
    (folder / LANGUAGES).unlink()
    older = open_bundle(folder, threads=1).model
    assert older.identify is None
    assert bundle.model.identify is not None
    text = "Pourriez-vous expliquer pourquoi les mar\u00e9es montent deux fois par jour ?"
    assert bundle.model.identify(text) == packaged()(text)
    verdicts = []
    for model in (older, replace(older, identify=bundle.model.identify)):
        snapshot = empty_snapshot(model.encoder.dimensions).extended(bundle.examples, bundle.vectors, 1)
        verdicts.append(Scorer(model, lambda held=snapshot: held).score([text]).verdicts)  # type: ignore[misc]
    assert verdicts[0] == verdicts[1]
    assert verdicts[0][0].abstention is not None


@pytest.mark.parametrize("data", [b"", b"languages", save({"classes": np.zeros(3, np.uint8)})])
def test_languages_that_are_no_tables_are_refused_though_their_hash_fits(folder: Path, data: bytes) -> None:
    swap(folder, LANGUAGES, data)
    with pytest.raises(BundleRejected, match=r"^languages\.safetensors cannot be used"):
        open_bundle(folder, threads=1)


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_vectors_in_a_pickle_are_refused_and_never_unpickled(folder: Path, tmp_path: Path) -> None:
    trap = tmp_path / "unpickled"
    swap(folder, "examples.npy", npy(np.array([Bomb(trap)], dtype=object), allow_pickle=True))
    with pytest.raises(BundleRejected, match=r"^examples\.npy"):
        open_bundle(folder, threads=1)
    assert not trap.exists()
    np.load(folder / "examples.npy", allow_pickle=True)
    assert trap.exists()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda vectors: npy(vectors[:-1]),
        lambda vectors: npy(vectors[:, :-1]),
        lambda vectors: npy(vectors.astype(np.float64)),
        lambda vectors: npy(vectors)[:-4],
        lambda vectors: b"\x93NUMPY and then nothing",
    ],
    ids=["a row less", "a column less", "float64", "cut off", "garbage"],
)
def test_vectors_that_do_not_fit_the_examples_are_refused(
    folder: Path, spoil: Callable[[NDArray[np.float32]], bytes]
) -> None:
    swap(folder, "examples.npy", spoil(np.load(folder / "examples.npy")))
    with pytest.raises(BundleRejected, match=r"^examples\.npy does not fit examples\.jsonl"):
        open_bundle(folder, threads=1)


ROW = b'{"text": "a", "label": "benign", "capabilities": [], "technique": null, "language": "", "source": "", "author": "", "note": ""}'


@pytest.mark.parametrize(
    "row",
    [
        b"",
        b"not JSON",
        b"\xff",
        b"[]",
        b'"text"',
        b'{"text": "MARKER", "label": "benign"}',
        b'{"text": "MARKER", "capabilities": [], "technique": null, "language": "", "source": "", "author": "", "note": ""}',
        b'{"text": "MARKER", "label": "other", "capabilities": [], "technique": null, "language": "", "source": "", "author": "", "note": ""}',
        b'{"text": "MARKER", "label": "benign", "capabilities": [], "technique": null, "language": "", "source": "", "author": "", "note": "", "surprise": 1}',
        b'{"text": "MARKER", "label": "benign", "capabilities": [], "technique": null, "language": "", "source": "", "author": "", "note": "", "technique": "self_chat"}',
        b'{"text": 1, "label": "benign", "capabilities": [], "technique": null, "language": "", "source": "", "author": "", "note": ""}',
        b'{"text": " ", "label": "benign", "capabilities": [], "technique": null, "language": "", "source": "", "author": "", "note": ""}',
        b'{"text": "\\ud800", "label": "benign", "capabilities": [], "technique": null, "language": "", "source": "", "author": "", "note": ""}',
    ],
)
def test_a_row_that_is_no_example_is_refused_by_its_number_and_without_its_text(row: bytes) -> None:
    with pytest.raises(BundleRejected, match=r"^examples\.jsonl, row 2 is no example") as caught:
        parse_examples(b"\n".join([ROW, row, ROW]))
    assert "MARKER" not in str(caught.value)


NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
TEXTS = st.text(min_size=1, max_size=40).filter(lambda text: text.strip() != "")
EXAMPLES = st.builds(
    lambda technique, **fields: Example(
        label=Label.BENIGN if technique is None else Label.EXTRACTION, technique=technique, **fields
    ),
    text=TEXTS,
    technique=st.none() | NAMES,
    capabilities=st.lists(NAMES, max_size=4).map(tuple),
    language=st.sampled_from(["", "en", "pt-BR"]),
    source=st.text(max_size=10),
    author=st.text(max_size=10),
    note=st.text(max_size=10),
)


@settings(max_examples=50, deadline=None)
@given(examples=st.lists(EXAMPLES, max_size=5).map(tuple))
def test_examples_come_back_as_they_were_written(examples: tuple[Example, ...]) -> None:
    def said(example: Example) -> tuple[object, ...]:
        return (
            example.text,
            example.label,
            example.technique,
            example.capabilities,
            example.language,
            example.source,
            example.author,
            example.note,
        )

    assert [said(example) for example in parse_examples(dump_examples(examples))] == list(map(said, examples))


def test_a_plain_graph_is_allowed() -> None:
    check_onnx("plain.onnx", model(domains=("", "com.microsoft", "ai.onnx.ml")).SerializeToString())


@pytest.mark.parametrize("name", ["encoder.onnx", "head.onnx"])
def test_the_default_bundles_graphs_are_allowed(pristine: Path, name: str) -> None:
    check_onnx(name, (pristine / name).read_bytes())


def refused(found: onnx.ModelProto, why: str) -> None:
    with pytest.raises(BundleRejected, match=rf"^odd\.onnx {why}"):
        check_onnx("odd.onnx", found.SerializeToString())


def test_weights_at_a_place_outside_the_graph_are_refused() -> None:
    found = model()
    found.graph.initializer[0].external_data.add(key="location", value="../weights.bin")
    refused(found, "keeps weights in another file")


def test_weights_that_only_say_that_they_are_elsewhere_are_refused() -> None:
    found = model()
    found.graph.initializer[0].data_location = TensorProto.EXTERNAL
    refused(found, "keeps weights in another file")


def test_an_operator_set_of_a_foreign_domain_is_refused() -> None:
    refused(model(domains=("", "com.example")), "uses operators of a domain")


def test_a_node_of_a_foreign_domain_is_refused_though_no_operator_set_names_it() -> None:
    node = helper.make_node("Identity", ["x"], ["y"], domain="com.example")
    refused(model(node), "uses operators of a domain")


def test_sparse_initialisers_are_refused() -> None:
    found = model()
    values = helper.make_tensor("sparse", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("indices", TensorProto.INT64, [1], [0])
    found.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [3]))
    refused(found, "holds sparse initialisers, functions or training steps")


def test_functions_are_refused() -> None:
    found = model()
    body = [helper.make_node("Identity", ["a"], ["b"])]
    found.functions.append(helper.make_function("", "Same", ["a"], ["b"], body, [helper.make_opsetid("", 1)]))
    refused(found, "holds sparse initialisers, functions or training steps")


def test_a_nested_graph_is_refused() -> None:
    branch = model().graph
    refused(model(helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)), "holds nested graphs")


def test_a_list_of_nested_graphs_is_refused() -> None:
    refused(model(helper.make_node("Identity", ["x"], ["y"], branches=[model().graph])), "holds nested graphs")


@pytest.mark.parametrize("data", [b"\xff" * 100, b"garbage garbage", b"PK\x03\x04 a zip", b"\x80\x04N."])
def test_garbage_is_no_graph(data: bytes) -> None:
    with pytest.raises(BundleRejected, match=r"^odd\.onnx is no ONNX model"):
        check_onnx("odd.onnx", data)


def test_a_graph_that_is_cut_off_is_refused(pristine: Path) -> None:
    data = (pristine / "head.onnx").read_bytes()
    with pytest.raises(BundleRejected, match=r"^head\.onnx is no ONNX model"):
        check_onnx("head.onnx", data[:-10])


@pytest.mark.parametrize("name", ["encoder.onnx", "head.onnx", "tokenizer.json", "examples.npy", "examples.jsonl"])
@pytest.mark.parametrize("content", [b"", b"{}", b"PK\x03\x04 rubbish", b"\xff\xfe", b"[" * 100_000])
def test_wrong_contents_whose_hash_fits_are_refused_by_name(folder: Path, name: str, content: bytes) -> None:
    if (name, content) == ("examples.jsonl", b""):
        content = b"\n"
    swap(folder, name, content)
    with pytest.raises(BundleRejected):
        open_bundle(folder, threads=1)


def test_a_constant_that_reads_another_file_is_refused() -> None:
    tensor = onnx.TensorProto(data_type=onnx.TensorProto.FLOAT, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="weights.bin")
    node = onnx.helper.make_node("Constant", [], ["x"], value=tensor)
    output = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([node], "g", [], [output])
    with pytest.raises(BundleRejected, match="another file"):
        check_onnx("odd.onnx", onnx.helper.make_model(graph).SerializeToString())
