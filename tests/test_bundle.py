"""The bundle: which manifests and files open, what is refused and why, and how a new bundle takes the old one's place."""

import hashlib
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spoiling import amend, linked_copy, manifest_of, pristine_copy, put

from classifier.bundle import FILES, LANGUAGES, MANIFEST, Bundle, open_bundle, read_manifest, write_bundle
from classifier.errors import BundleRejected
from index.example import Label

SMALL = {name: f"contents of {name}".encode() for name in FILES}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built bundle in a folder that nobody rebuilds."""
    return pristine_copy(tmp_path_factory.mktemp("pristine"))


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    """A bundle that a test may spoil; its files are links, so they are replaced and never written into."""
    return linked_copy(pristine, tmp_path / "bundle")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder of bundles that is not there yet."""
    return tmp_path / "bundles"


@pytest.fixture
def card(pristine: Path) -> dict[str, Any]:
    """What write_bundle wants to know beside the files."""
    return {key: value for key, value in manifest_of(pristine).items() if key != "files"}


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


def test_files_of_other_names_are_never_written(tmp_path: Path) -> None:
    with pytest.raises(BundleRejected, match="exactly"):
        write_bundle(tmp_path / "bundles", {}, {"../out": b"z"})
    assert not (tmp_path / "out").exists()
