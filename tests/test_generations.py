"""Reload in one process: what is swapped, what is refused, and that nothing is lost or kept too long."""

import gc
import json
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import variants

from classifier import canary
from classifier.canary import check, load_canaries
from classifier.config import Settings
from classifier.corpus import load_corpus
from classifier.errors import BundleRejected, CanaryFailed, InvalidSetting, ReloadInProgress, ShuttingDown
from classifier.runtime import Runtime, open_runtime
from classifier.serve.generations import Generations
from index.change import Act
from index.contract import Relabel
from index.errors import StoreUnavailable
from index.example import Example, Label, State

ACT = Act("analyst")
ORDINARY = "My train was cancelled this morning, how do I ask for my money back?"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with bundles of its own."""
    return variants.make_home(tmp_path)


@contextmanager
def generations(home: Path, **settings: Any) -> Iterator[Generations]:
    given = Settings(home=home, **settings)
    with open_runtime(given) as runtime:
        held = Generations(runtime, given, lambda: given)
        del runtime
        yield held


def benign(text: str) -> Example:
    return Example(text, Label.BENIGN, source="analysts")


def contents(runtime: Runtime) -> set[tuple[str, str]]:
    """Every example of the index, with its label."""
    snapshot = runtime.examples.snapshot
    return {(e.id, str(e.label)) for side in (snapshot.extraction, snapshot.benign) for e in side.examples}


def stored(runtime: Runtime) -> set[tuple[str, str]]:
    return {(e.id, str(e.label)) for e in runtime.store.since(0)}


def test_a_reload_takes_bundle_thresholds_and_seed_together(home: Path) -> None:
    with generations(home) as held:
        before = held.scorer().score([ORDINARY]).provenance
        variants.make_current(
            home,
            variants.versioned("9.0.0"),
            variants.with_thresholds(0.25, 0.5),
            variants.seeded(lambda n, _: n % 2 == 0),
        )
        total = len(held.runtime.bundle.examples)
        swap = held.reload()
        after = held.scorer().score([ORDINARY]).provenance
        assert after.bundle_version.startswith("9.0.0+")
        assert (after.review_threshold, after.flag_threshold) == (0.25, 0.5)
        assert after.index_revision == swap.index_revision > before.index_revision
        assert len(contents(held.runtime)) == len(held.runtime.bundle.examples) < 0.6 * total
        assert contents(held.runtime) == stored(held.runtime)


def test_after_a_reload_the_index_is_what_a_restart_would_make_of_the_store(home: Path) -> None:
    with generations(home) as held:
        held.add([benign("a ferry to the island at noon"), benign("a second one")], ACT)
        variants.make_current(home, variants.seeded(lambda n, _: n > 100), variants.of_another_encoder)
        held.reload()
        served, revision = contents(held.runtime), held.runtime.examples.snapshot.revision
        found = held.scorer().score([ORDINARY, "a ferry to the island at noon"]).verdicts
    with open_runtime(Settings(home=home)) as restarted:
        assert contents(restarted) == served
        assert restarted.examples.snapshot.revision == revision
        again = restarted.scorer.score([ORDINARY, "a ferry to the island at noon"]).verdicts
        assert [v.extraction_logit for v in again] == pytest.approx([v.extraction_logit for v in found], abs=1e-3)


def test_examples_are_encoded_again_by_a_new_encoder_and_kept(home: Path) -> None:
    with generations(home) as held:
        (added,), _ = held.add([benign("a ferry to the island at noon")], ACT)
        variants.make_current(home, variants.of_another_encoder)
        held.reload()
        fingerprint = held.runtime.bundle.model.encoder.fingerprint
        kept = held.runtime.store.vectors(fingerprint)[added.id]
        assert np.allclose(kept, held.scorer().embed([added.text])[0], atol=1e-3)
        (nearest,), _ = held.scorer().nearest(added.text, 1)
        assert (nearest.example.id, round(nearest.cosine, 3)) == (added.id, 1.0)


def test_a_spoilt_kept_vector_is_made_again(home: Path) -> None:
    with generations(home) as held:
        (added,), _ = held.add([benign("a ferry to the island at noon")], ACT)
        with closing(sqlite3.connect(home / "examples.db")) as database, database:
            database.execute("UPDATE vectors SET vector = ? WHERE example_id = ?", (b"\0\0\xc0\x7f" * 384, added.id))
        held.reload()
        (nearest,), _ = held.scorer().nearest(added.text, 1)
        assert nearest.example.id == added.id


def test_an_analysts_label_stands_against_a_new_seeds(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with generations(home) as held:
        text = "a text that both will label"
        original = held._candidate

        def candidate(bundle: Any, settings: Settings) -> Any:
            """Somebody labels the text after the candidate was built."""
            built = original(bundle, settings)
            if len(calls) == 0:
                held.add([benign(text)], ACT)
            calls.append(1)
            return built

        calls: list[int] = []
        monkeypatch.setattr(held, "_candidate", candidate)  # a moment that no test can hit from outside
        row = {"text": text, "label": "extraction", "technique": "self_chat"}
        variants.make_current(home, variants.seeded(lambda n, _: True, row))
        held.reload()
        (nearest,), _ = held.scorer().nearest(text, 1)
        assert nearest.example.label == Label.BENIGN
        assert nearest.example.source == "analysts"
        assert contents(held.runtime) == stored(held.runtime)


def test_what_somebody_did_to_a_bundles_example_by_hand_outlives_every_bundle(home: Path) -> None:
    with generations(home) as held:
        seeds = [e for e in held.runtime.bundle.examples if e.label == Label.EXTRACTION][:4]
        turned, gone, back, _ = seeds
        held.write(lambda store: store.relabel([Relabel(turned.id, Label.BENIGN, None, ())], ACT))
        held.write(lambda store: store.revoke([gone.id, back.id], ACT))
        held.write(lambda store: store.restore([back.id], ACT, State.PENDING))
        for wanted in (lambda n, _: n % 2 == 0, lambda n, _: True, lambda n, _: n > 100):
            variants.make_current(home, variants.seeded(wanted))
            held.reload()
            assert contents(held.runtime) == {
                (e.id, str(e.label)) for e in held.runtime.store.since(0) if e.state is State.ACTIVE
            }
            assert {(turned.id, "benign")} <= contents(held.runtime)
            assert not {gone.id, back.id} & {name for name, _ in contents(held.runtime)}
            assert held.runtime.examples.snapshot.revision == held.runtime.store.revision()


def test_examples_written_while_reloading_in_a_loop_are_all_stored_and_searchable(home: Path) -> None:
    other = variants.make_current(home, variants.versioned("9.0.0"), variants.seeded(lambda n, _: n % 3 != 0))
    variants.point(home, "default")
    written: list[Example] = []
    done = threading.Event()
    with generations(home) as held:

        def write(writer: int) -> None:
            number = 0
            while not done.is_set():
                number += 1
                examples, revision = held.add([benign(f"writer {writer} saw ferry number {number}")], ACT)
                written.extend(examples)
                snapshot = held.runtime.examples.snapshot
                assert snapshot.revision >= revision
                assert examples[0].id in snapshot.benign.ids, "acknowledged is searchable, whatever was swapped"

        with ThreadPoolExecutor(2) as writers:
            tasks = [writers.submit(write, number) for number in range(2)]
            try:
                for name in (other, "default", other, "default", other):
                    variants.point(home, name)
                    held.reload()
            finally:
                done.set()
            for task in tasks:
                task.result()
        assert len(written) > 10
        assert {(e.id, "benign") for e in written} <= contents(held.runtime)
        assert contents(held.runtime) == stored(held.runtime)


def broken_file(home: Path) -> None:
    name = variants.make_current(home, variants.versioned("9.0.0"))
    with (home / "bundles" / name / "head.onnx").open("ab") as file:
        file.write(b"x")


def missing_file(home: Path) -> None:
    name = variants.make_current(home, variants.versioned("9.0.0"))
    (home / "bundles" / name / "tokenizer.json").unlink()


def other_schema(home: Path) -> None:
    name = variants.make_current(home, variants.versioned("9.0.0"))
    path = home / "bundles" / name / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 2}))


def everything_is_extraction(home: Path) -> None:
    variants.make_current(home, variants.shifted(50.0))


def nothing_is_a_number(home: Path) -> None:
    variants.make_current(home, variants.with_blind_encoder)


def no_pointer(home: Path) -> None:
    (home / "bundles" / "current").unlink()


def no_table(home: Path) -> None:
    variants.make_current(home, variants.versioned("9.0.0"))
    with closing(sqlite3.connect(home / "examples.db")) as database, database:
        database.execute("ALTER TABLE examples RENAME TO hidden")


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (broken_file, BundleRejected, "head.onnx has SHA-256"),
        (missing_file, BundleRejected, "no readable tokenizer.json"),
        (other_schema, BundleRejected, "manifest.json is not valid at schema_version"),
        (everything_is_extraction, CanaryFailed, "canary prompts wrongly (capital, train"),
        (nothing_is_a_number, CanaryFailed, "no finite unit vectors"),
        (no_pointer, BundleRejected, "no readable manifest.json"),
        (no_table, StoreUnavailable, "the example store examples.db cannot be used"),
    ],
)
def test_a_candidate_that_will_not_do_is_refused_and_changes_nothing(
    home: Path, spoil: Any, error: type[Exception], words: str
) -> None:
    with generations(home) as held:
        runtime, revision = held.runtime, held.runtime.store.revision()
        before = held.scorer().score([ORDINARY])
        spoil(home)
        with pytest.raises(error) as raised:
            held.reload()
        assert words in str(raised.value)
        assert held.runtime is runtime
        after = held.scorer().score([ORDINARY])
        assert (after.verdicts, after.provenance) == (before.verdicts, before.provenance)
        assert runtime.store.revision() == revision
        assert not held.reloading


def test_a_refused_candidate_with_another_seed_leaves_the_stores_seed_alone(home: Path) -> None:
    with generations(home) as held:
        before = stored(held.runtime)
        variants.make_current(home, variants.shifted(50.0), variants.seeded(lambda n, _: n % 2 == 0))
        with pytest.raises(CanaryFailed):
            held.reload()
        assert stored(held.runtime) == before


def test_a_store_that_fails_at_the_last_step_leaves_the_old_generation_in_force(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with generations(home) as held:
        runtime = held.runtime
        variants.make_current(home, variants.seeded(lambda n, _: n % 2 == 0))
        with closing(sqlite3.connect(home / "examples.db")) as database:
            fails = "WHEN NEW.action = 'revoke' BEGIN SELECT RAISE(ABORT, 'full'); END"
            database.execute(f"CREATE TRIGGER no_more BEFORE INSERT ON changes {fails}")
        with pytest.raises(StoreUnavailable):
            held.reload()
        assert held.runtime is runtime
        assert contents(runtime) == stored(runtime)
        held.add([benign("still writable")], ACT)
        assert contents(runtime) == stored(runtime)


def test_a_second_reload_is_told_of_the_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, gate = threading.Event(), threading.Event()

    def slow(runtime: Runtime) -> tuple[str, ...]:
        entered.set()
        assert gate.wait(20)
        return check(runtime)

    monkeypatch.setattr("classifier.serve.generations.check", slow)
    with generations(home) as held, ThreadPoolExecutor(1) as pool:
        first = pool.submit(held.reload)
        assert entered.wait(20)
        with pytest.raises(ReloadInProgress):
            held.reload()
        assert held.reloading
        gate.set()
        first.result()
        assert not held.reloading


def test_a_stopping_server_ends_its_reload_without_a_swap(home: Path) -> None:
    with generations(home) as held:
        runtime = held.runtime
        held.add([benign(f"ferry number {number}") for number in range(40)], ACT)
        variants.make_current(home, variants.of_another_encoder)
        held.stop()
        started = time.monotonic()
        with pytest.raises(ShuttingDown):
            held.reload()
        assert time.monotonic() - started < 20
        assert held.runtime is runtime


def test_what_was_replaced_is_freed(home: Path) -> None:
    with generations(home) as held:
        gc.collect()
        gc.disable()  # it must go by itself, not when a collection happens to run
        try:
            old: list[weakref.ref[Any]] = [
                weakref.ref(held.scorer().model.encoder),
                weakref.ref(held.runtime.examples),
                weakref.ref(held.scorer()),
            ]
            variants.make_current(home, variants.of_another_encoder)
            held.reload()
            assert [ref() for ref in old] == [None, None, None]
        finally:
            gc.enable()


def test_what_did_not_change_is_used_again(home: Path) -> None:
    with generations(home) as held:
        encoder, examples = held.runtime.bundle.model.encoder, held.runtime.bundle.examples
        variants.make_current(home, variants.with_thresholds(0.25, 0.5))
        held.reload()
        assert held.runtime.bundle.model.encoder is encoder
        assert held.runtime.bundle.examples is examples
        variants.make_current(home, variants.of_another_encoder)
        held.reload()
        assert held.runtime.bundle.model.encoder is not encoder


def test_thresholds_are_read_again_and_settings_that_need_a_restart_are_named(home: Path) -> None:
    now = [Settings(home=home)]
    with open_runtime(now[0]) as runtime:
        held = Generations(runtime, now[0], lambda: now[0])
        now[0] = Settings(home=home, flag_threshold=0.5, review_threshold=0.25, queue_tokens=999, port=1)
        swap = held.reload()
        provenance = held.scorer().score([ORDINARY]).provenance
        assert (provenance.review_threshold, provenance.flag_threshold) == (0.25, 0.5)
        assert swap.needs_restart == ("port", "queue_tokens")
        now[0] = Settings(home=home)
        held.reload()
        assert held.scorer().model.thresholds == held.runtime.bundle.model.thresholds
        now[0] = Settings(home=home, flag_threshold=0.2, review_threshold=0.5)
        with pytest.raises(InvalidSetting, match="over the flag threshold"):
            held.reload()


def test_settings_that_cannot_be_read_refuse_the_reload_without_quoting_them(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv("STILLWATCH_HOME", str(home))
    given = Settings()
    with open_runtime(given) as runtime:
        held = Generations(runtime, given)
        for text in ("flag_threshold = 7 # secret", "secret = 1", "not toml: secret"):
            (home / "stillwatch.toml").write_text(text)
            with pytest.raises(InvalidSetting) as raised:
                held.reload()
            assert "secret" not in str(raised.value)
        (home / "stillwatch.toml").write_text("flag_threshold = 0.99")
        held.reload()
        assert held.scorer().model.thresholds.flag == 0.99


def test_the_default_bundle_decides_every_canary_by_a_wide_margin(runtime: Runtime) -> None:
    canaries = load_canaries()
    assert {c.label for c in canaries} == set(Label)
    for found, verdict in zip(
        canaries, canary.alone(runtime.bundle).score([c.text for c in canaries]).verdicts, strict=True
    ):
        sure = verdict.extraction_probability if found.label == Label.EXTRACTION else 1 - verdict.extraction_probability
        assert sure > 0.9, found.name
    assert check(runtime) == ()


def test_no_canary_stands_in_the_seed_corpus() -> None:
    texts = {row.example.text for row in load_corpus()}
    assert not [found.name for found in load_canaries() if found.text in texts]


def test_a_mislabelled_example_is_named_but_keeps_no_sound_bundle_from_work(home: Path) -> None:
    with generations(home) as held:
        (chosen,) = [found for found in load_canaries() if found.name == "responses"]
        held.add([Example(chosen.text, Label.BENIGN, source="analysts")], ACT)
        assert held.reload().moved_canaries == ("responses",)
