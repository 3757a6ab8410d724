"""The bundle: what opens, what is refused and why, and how a new one takes the old one's place."""

import hashlib
import json
import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper
from safetensors.numpy import save

from classifier.bundle import (
    FILES,
    LANGUAGES,
    MANIFEST,
    Bundle,
    check_onnx,
    dump_examples,
    open_bundle,
    parse_examples,
    read_manifest,
    write_bundle,
)
from classifier.errors import BundleRejected
from classifier.identifier import packaged
from classifier.scorer import Scorer
from index.example import Example, Label
from index.live import empty_snapshot

BUILT = Path(__file__).parent.parent / "var" / "bundles" / "current"
SMALL = {name: f"contents of {name}".encode() for name in FILES}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built bundle in a folder that nobody rebuilds."""
    folder = tmp_path_factory.mktemp("pristine")
    shutil.copytree(BUILT.resolve(), folder, dirs_exist_ok=True)
    return folder


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    """A bundle that a test may spoil; its files are links, so they are replaced and never written into."""
    copy = tmp_path / "bundle"
    shutil.copytree(pristine, copy, copy_function=os.link)
    return copy


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder of bundles that is not there yet."""
    return tmp_path / "bundles"


@pytest.fixture
def card(pristine: Path) -> dict[str, Any]:
    """What write_bundle wants to know beside the files."""
    return {key: value for key, value in manifest_of(pristine).items() if key != "files"}


def manifest_of(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
    return manifest


def put(folder: Path, name: str, data: bytes) -> None:
    """Replace a file and leave the manifest as it is."""
    (folder / name).unlink()
    (folder / name).write_bytes(data)


def amend(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest."""
    manifest = manifest_of(folder)
    change(manifest)
    put(folder, MANIFEST, json.dumps(manifest).encode())


def swap(folder: Path, name: str, data: bytes) -> None:
    """Replace a file and give the manifest its hash, as somebody would who can write the whole folder."""
    put(folder, name, data)
    amend(folder, lambda manifest: manifest["files"].update({name: hashlib.sha256(data).hexdigest()}))


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


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Let every write beyond this many bytes of a file fail, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def watching(look: Callable[[], object]) -> Iterator[None]:
    """Look before every line of Python that runs meanwhile, as a reader may who comes at any moment."""

    def trace(_frame: FrameType, _event: str, _argument: object) -> Callable[..., Any]:
        look()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def names_in(home: Path) -> set[str]:
    return {path.name for path in home.iterdir()}


def test_the_default_bundle_opens_with_a_unit_vector_for_every_example(bundle: Bundle) -> None:
    assert bundle.vectors.shape == (len(bundle.examples), bundle.model.encoder.dimensions)
    assert bundle.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(bundle.vectors, axis=1), 1.0, atol=1e-5)
    assert {example.label for example in bundle.examples} == set(Label)


def test_the_opened_model_is_what_the_manifest_says(folder: Path) -> None:
    manifest, version = read_manifest(folder)
    opened = open_bundle(folder, threads=1)
    head, model = manifest.head, opened.model
    assert opened.manifest == manifest
    assert model.version == version
    assert (model.labels.techniques, model.labels.capabilities) == (head.techniques, head.capabilities)
    assert (model.thresholds.review, model.thresholds.flag) == (head.thresholds.review, head.thresholds.flag)
    assert [(scale.slope, scale.offset) for scale in head.calibration] == [
        (scale.slope, scale.offset) for scale in model.calibration
    ]


@pytest.mark.parametrize("name", [*FILES, LANGUAGES])
def test_a_file_with_one_flipped_bit_is_refused_by_name(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    put(folder, name, bytes(data))
    with pytest.raises(BundleRejected, match=rf"^{name} has SHA-256 "):
        open_bundle(folder, threads=1)


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_missing_file_is_refused_with_its_name_and_the_mend(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleRejected, match=rf"no readable {name} .*stillwatch bundle build"):
        open_bundle(folder, threads=1)


def test_a_folder_that_is_not_there_is_refused_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(BundleRejected, match="stillwatch bundle build"):
        open_bundle(tmp_path / "nowhere", threads=1)


@pytest.mark.parametrize("extra", ["notes.txt", "../x", "/etc/hostname", "encoder.onnx/../x", ""])
def test_a_manifest_that_names_another_file_is_refused(folder: Path, extra: str) -> None:
    (folder.parent / "x").write_bytes(b"")
    amend(folder, lambda manifest: manifest["files"].update({extra: hashlib.sha256(b"").hexdigest()}))
    with pytest.raises(BundleRejected, match="must name exactly"):
        open_bundle(folder, threads=1)


def test_a_manifest_that_names_a_path_instead_of_a_file_is_refused(folder: Path) -> None:
    (folder / "head.onnx").rename(folder.parent / "x")
    amend(folder, lambda manifest: manifest["files"].update({"../x": manifest["files"].pop("head.onnx")}))
    with pytest.raises(BundleRejected, match="must name exactly"):
        open_bundle(folder, threads=1)


@pytest.mark.parametrize(
    ("where", "change"),
    [
        ("surprise", lambda manifest: manifest.update(surprise=1)),
        ("head.surprise", lambda manifest: manifest["head"].update(surprise=1)),
        ("head.calibration.0.surprise", lambda manifest: manifest["head"]["calibration"][0].update(surprise=1)),
        ("head.thresholds.surprise", lambda manifest: manifest["head"]["thresholds"].update(surprise=1)),
    ],
)
def test_an_unknown_field_of_the_manifest_is_refused_by_its_place(
    folder: Path, where: str, change: Callable[[dict[str, Any]], object]
) -> None:
    amend(folder, change)
    with pytest.raises(BundleRejected, match=rf"^{MANIFEST} is not valid at {where}:"):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("where", "change"),
    [
        ("schema_version", lambda manifest: manifest.update(schema_version=2)),
        ("schema_version", lambda manifest: manifest.update(schema_version=0)),
        ("schema_version", lambda manifest: manifest.update(schema_version="1")),
        ("schema_version", lambda manifest: manifest.pop("schema_version")),
        ("version", lambda manifest: manifest.update(version="../0.1.0")),
        ("precision", lambda manifest: manifest.update(precision="fp16")),
        ("weights_sha256", lambda manifest: manifest.update(weights_sha256="0" * 63)),
        ("files.head.onnx", lambda manifest: manifest["files"].update({"head.onnx": "F" * 64})),
        ("head.thresholds.flag", lambda manifest: manifest["head"]["thresholds"].update(flag=1.01)),
        ("head.window_length", lambda manifest: manifest["head"].update(window_length=511)),
        ("head.techniques.0", lambda manifest: manifest["head"].update(techniques=["[red]loud"])),
    ],
)
def test_a_manifest_with_a_wrong_value_is_refused_by_its_place(
    folder: Path, where: str, change: Callable[[dict[str, Any]], object]
) -> None:
    amend(folder, change)
    with pytest.raises(BundleRejected, match=rf"^{MANIFEST} is not valid at {where}:"):
        read_manifest(folder)


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"{", b"null", b"[]", b"[" * 100_000])
def test_a_manifest_that_is_no_json_object_is_refused(folder: Path, data: bytes) -> None:
    put(folder, MANIFEST, data)
    with pytest.raises(BundleRejected, match=rf"^{MANIFEST} is not valid"):
        read_manifest(folder)


def test_the_manifest_is_read_without_the_files_it_names(folder: Path) -> None:
    manifest, version = read_manifest(folder)
    for name in FILES:
        (folder / name).unlink()
    assert read_manifest(folder) == (manifest, version)


def test_the_full_version_is_the_version_and_the_head_of_the_manifests_hash(folder: Path) -> None:
    manifest, version = read_manifest(folder)
    digest = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    assert version == f"{manifest.version}+{digest[:12]}"


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest["head"].update(seed=manifest["head"]["seed"] + 1),
        lambda manifest: manifest["files"].update({"examples.npy": "0" * 64}),
        lambda manifest: manifest["head"]["thresholds"].update(flag=1.0),
    ],
)
def test_the_full_version_changes_with_the_content(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    amend(folder, lambda _: None)
    _, before = read_manifest(folder)
    amend(folder, change)
    _, after = read_manifest(folder)
    assert after != before


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_no_flipped_bit_of_the_manifest_keeps_the_full_version(
    pristine: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    original = (pristine / MANIFEST).read_bytes()
    _, version = read_manifest(pristine)
    flipped = bytearray(original)
    flipped[data.draw(st.integers(0, len(original) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    folder = tmp_path_factory.getbasetemp() / "flipped"
    folder.mkdir(exist_ok=True)
    (folder / MANIFEST).write_bytes(flipped)
    try:
        _, found = read_manifest(folder)
    except BundleRejected:
        return
    assert found != version


@pytest.mark.parametrize("labels", ["techniques", "capabilities"])
def test_a_head_whose_label_count_does_not_fit_is_refused(folder: Path, labels: str) -> None:
    amend(folder, lambda manifest: manifest["head"][labels].pop())
    with pytest.raises(BundleRejected, match=r"^head\.onnx cannot be used"):
        open_bundle(folder, threads=1)


def test_a_calibration_that_does_not_fit_the_labels_is_refused(folder: Path) -> None:
    amend(folder, lambda manifest: manifest["head"]["calibration"].pop())
    with pytest.raises(BundleRejected, match="calibration does not fit"):
        open_bundle(folder, threads=1)


def test_a_head_trained_on_another_canonical_text_is_refused(folder: Path) -> None:
    def age(manifest: dict[str, Any]) -> None:
        manifest["head"]["canonical_version"] += 1

    amend(folder, age)
    with pytest.raises(BundleRejected, match="canonical text"):
        open_bundle(folder, threads=1)


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


def test_a_written_bundle_opens_through_current(pristine: Path, home: Path, card: dict[str, Any]) -> None:
    written = write_bundle(home, card, {name: (pristine / name).read_bytes() for name in FILES})
    opened = open_bundle(home / "current", threads=1)
    assert opened.model.version.replace("+", "-") == written.name
    assert names_in(home) == {"current", written.name}
    assert names_in(written) == {MANIFEST, *FILES}


def test_current_is_a_relative_link_so_that_the_home_may_move(home: Path, card: dict[str, Any]) -> None:
    written = write_bundle(home, card, SMALL)
    assert (home / "current").readlink() == Path(written.name)
    moved = home.rename(home.with_name("moved"))
    assert (moved / "current" / "head.onnx").read_bytes() == SMALL["head.onnx"]


def test_a_written_bundle_may_be_read_by_others(home: Path, card: dict[str, Any]) -> None:
    assert write_bundle(home, card, SMALL).stat().st_mode & 0o777 == 0o755


def test_a_second_bundle_replaces_the_first_and_leaves_it_in_its_place(home: Path, card: dict[str, Any]) -> None:
    first = write_bundle(home, card, SMALL)
    _, before = read_manifest(home / "current")
    second = write_bundle(home, card, {**SMALL, "head.onnx": b"another head"})
    _, after = read_manifest(home / "current")
    assert first != second
    assert before != after
    assert (home / "current").resolve() == second
    assert (first / "head.onnx").read_bytes() == SMALL["head.onnx"]
    assert names_in(home) == {"current", first.name, second.name}


def test_the_same_bundle_written_again_is_whole_and_alone(home: Path, card: dict[str, Any]) -> None:
    first = write_bundle(home, card, SMALL)
    put(first, "head.onnx", b"spoilt")
    assert write_bundle(home, card, SMALL) == first
    assert (first / "head.onnx").read_bytes() == SMALL["head.onnx"]
    assert names_in(home) == {"current", first.name}


def test_at_every_moment_of_a_write_current_is_the_old_bundle_or_the_new_one(home: Path, card: dict[str, Any]) -> None:
    write_bundle(home, card, SMALL)
    _, old = read_manifest(home / "current")
    seen = []
    with watching(lambda: seen.append(read_manifest(home / "current")[1])):
        write_bundle(home, card, {**SMALL, "head.onnx": b"another head"})
    _, new = read_manifest(home / "current")
    turn = seen.index(new)
    assert turn > 0
    assert seen == [old] * turn + [new] * (len(seen) - turn)


@pytest.mark.parametrize("large", [FILES[0], FILES[-1]])
def test_an_interrupted_write_leaves_current_as_it_was_and_nothing_behind(
    home: Path, card: dict[str, Any], large: str
) -> None:
    first = write_bundle(home, card, SMALL)
    with full_disk(50_000), pytest.raises(OSError, match="File too large"):
        write_bundle(home, card, {**SMALL, large: b"x" * 100_000})
    assert (home / "current").readlink() == Path(first.name)
    assert names_in(home) == {"current", first.name}
    assert names_in(first) == {MANIFEST, *FILES}


def test_an_interrupted_first_write_leaves_an_empty_home(home: Path, card: dict[str, Any]) -> None:
    with full_disk(50_000), pytest.raises(OSError, match="File too large"):
        write_bundle(home, card, {**SMALL, "encoder.onnx": b"x" * 100_000})
    assert names_in(home) == set()


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


def test_files_of_other_names_are_never_written(tmp_path: Path) -> None:
    with pytest.raises(BundleRejected, match="exactly"):
        write_bundle(tmp_path / "bundles", {}, {"../out": b"z"})
    assert not (tmp_path / "out").exists()
