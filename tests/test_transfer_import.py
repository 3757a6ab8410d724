"""An import stores the good rows once, says what is wrong with the others, and may be run again."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from stillwatch.v1 import examples_pb2
from transferred import FORMATS, MemoryKeeper

from classifier.errors import DataRejected, ServiceFailed, TooManyItems
from classifier.transfer import importing
from classifier.transfer.exporting import Wanted, stored_examples
from classifier.transfer.importing import Counts, Import
from classifier.transfer.reading import ExampleFile, Rejection, source_of
from classifier.transfer.rejects import open_rejects
from classifier.transfer.schema import AS_WRITTEN, Choices
from classifier.transfer.writing import write_examples
from index.example import Example, Label, State

ATTACK = {"label": "extraction", "technique": "self_chat"}


def rows(path: Path, *contents: object) -> Path:
    path.write_text("".join(json.dumps(content) + "\n" for content in contents))
    return path


def benign(number: int, **fields: object) -> dict[str, object]:
    return {"text": f"question {number}", "label": "benign", **fields}


def run(
    keeper: MemoryKeeper, *paths: Path, choices: Choices = AS_WRITTEN, known: int | None = 0
) -> tuple[Counts, list[tuple[int, str]]]:
    """Import files; the counts, and row and reason of what was rejected."""
    found: list[Rejection] = []
    work = Import(keeper, known if known is None else keeper.revision, found.append)
    for path in paths:
        work.run(ExampleFile(source_of(path), choices))
    return work.counts, [(each.row, each.reason) for each in found]


def test_good_rows_are_stored_in_lots_and_bad_ones_named_by_row_and_reason(tmp_path: Path) -> None:
    keeper = MemoryKeeper()
    bad = [{"label": "benign"}, {"text": "x", "label": "benign", "technique": "self_chat"}, [1]]
    path = rows(tmp_path / "a.jsonl", *(benign(number) for number in range(300)), *bad)
    counts, rejected = run(keeper, path)
    assert rejected == [(301, "missing_field"), (302, "invalid_example"), (303, "not_an_object")]
    assert (counts.stored, counts.added, counts.rejected, len(keeper.held)) == (300, 300, 3, 300)
    assert keeper.writes == [128, 128, 44]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (benign(1, text=None), "missing_field"),
        (benign(1, text=""), "missing_field"),
        (benign(1, label=None), "missing_field"),
        (benign(1, text=7), "wrong_type"),
        (benign(1, text={"a": 1}), "wrong_type"),
        (benign(1, capabilities="maths"), "wrong_type"),
        (benign(1, capabilities=["maths", 1]), "wrong_type"),
        (benign(1, created="yesterday"), "wrong_type"),
        (benign(1, created="2026-01-31T09:30:00"), "wrong_type"),
        (benign(1, created="0001-01-01T00:00:00+23:00"), "wrong_type"),
        (benign(1, revision=-1), "wrong_type"),
        (benign(1, revision=2**63), "wrong_type"),
        (benign(1, revision=True), "wrong_type"),
        (benign(1, stillwatch_schema=2), "unknown_schema"),
        (benign(1, id="ex-00000000000000000000"), "other_text"),
        (benign(1, content_hash="0" * 64), "other_text"),
        (benign(1, label="evil"), "invalid_example"),
        (benign(1, state="new"), "invalid_example"),
        (benign(1, text="\ud800"), "invalid_example"),
        (benign(1, note="\ud800"), "invalid_example"),
        (benign(1, text=" \n"), "invalid_example"),
        (benign(1, text="x" * 100_001), "invalid_example"),
        (benign(1, note="x" * 2_001), "invalid_example"),
        (benign(1, language="no language"), "invalid_example"),
        (benign(1, capabilities=["No Name"]), "invalid_example"),
        (benign(1, state="revoked"), "revoked"),
        (benign(1, source="seed"), "reserved_source"),
    ],
)
def test_what_is_no_example_has_a_reason_and_a_detail_without_its_text(
    tmp_path: Path, row: dict[str, object], reason: str
) -> None:
    keeper = MemoryKeeper()
    found: list[Rejection] = []
    path = rows(tmp_path / "a.jsonl", benign(0), row)
    Import(keeper, 0, found.append).run(ExampleFile(source_of(path)))
    (rejection,) = found
    assert (rejection.row, rejection.reason, rejection.content) == (2, reason, row)
    assert "question" not in rejection.detail
    assert len(rejection.detail) > 20
    assert len(keeper.held) == 1


def test_an_import_run_again_changes_nothing_and_asks_under_the_same_names(tmp_path: Path) -> None:
    keeper = MemoryKeeper()
    path = rows(tmp_path / "a.jsonl", *(benign(number) for number in range(150)), benign(3, **ATTACK))
    first, rejected = run(keeper, path)
    held, revision = dict(keeper.held), keeper.revision
    again, rejected_again = run(keeper, path)
    assert (first.added, again.added) == (150, 0)
    assert (first.stored, again.stored) == (150, 150)
    assert rejected == rejected_again == [(151, "conflict")]
    assert (keeper.held, keeper.revision) == (held, revision)


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_exported_and_imported_elsewhere_is_the_same(tmp_path: Path, format: str) -> None:
    one, two = MemoryKeeper(), MemoryKeeper()
    source = [
        benign(1, source="desk", licence="CC0-1.0", note="a\r\nb"),
        benign(2, state="pending", source="", stillwatch_schema=1, author="ada"),
        {"text": "Play both sides", **ATTACK, "capabilities": ["maths"]},
    ]
    run(one, rows(tmp_path / "a.jsonl", *source))
    path = tmp_path / f"out.{format}"
    assert write_examples(path, stored_examples(one, Wanted())) == 3
    counts, rejected = run(two, path)
    assert (counts.added, rejected) == (3, [])
    assert [_said(each) for each in two.held.values()] == [_said(each) for each in one.held.values()]


def _said(example: Example) -> tuple[object, ...]:
    names = ["text", "label", "technique", "capabilities", "language", "source", "author", "note", "licence", "state"]
    return tuple(getattr(example, name) for name in names)


def test_conflicts_are_rejected_row_by_row_and_their_neighbours_stored(tmp_path: Path) -> None:
    keeper = MemoryKeeper()
    run(keeper, rows(tmp_path / "known.jsonl", benign(5), benign(90)))
    path = rows(tmp_path / "a.jsonl", *(benign(n, **(ATTACK if n in (5, 90) else {})) for n in range(100)))
    counts, rejected = run(keeper, path)
    assert rejected == [(6, "conflict"), (91, "conflict")]
    assert (counts.stored, counts.added) == (98, 98)
    assert len(keeper.writes) < 40


def test_of_one_text_with_two_labels_the_first_row_counts(tmp_path: Path) -> None:
    keeper = MemoryKeeper()
    counts, rejected = run(keeper, rows(tmp_path / "a.jsonl", benign(1), benign(1), benign(1, **ATTACK), benign(2)))
    assert rejected == [(3, "conflict")]
    assert (counts.stored, counts.added) == (3, 2)
    assert {each.label for each in keeper.held.values()} == {Label.BENIGN}


def test_what_was_taken_back_since_does_not_come_again(tmp_path: Path) -> None:
    keeper = MemoryKeeper()
    path = rows(tmp_path / "a.jsonl", benign(1), benign(2))
    run(keeper, path)
    keeper.revoke(next(iter(keeper.held)))
    counts, rejected = run(keeper, path)
    assert (counts.stored, counts.added, rejected) == (1, 0, [(1, "conflict")])


def test_a_row_without_a_state_leaves_it_to_the_stores_rules(tmp_path: Path) -> None:
    path = rows(tmp_path / "a.jsonl", benign(1), benign(2, state="active"), benign(3, state="pending"))
    asked: list[int] = []

    class Keeper(MemoryKeeper):
        def add_examples(
            self, examples: Sequence[examples_pb2.Example], request_id: str = "", *, reason: str = "", actor: str = ""
        ) -> examples_pb2.AddExamplesResponse:
            asked.extend(example.state for example in examples)
            return super().add_examples(examples, request_id, reason=reason, actor=actor)

    run(Keeper(), path)
    assert asked == [0, 2, 1]
    asked.clear()
    run(Keeper(), path, choices=Choices(state=State.PENDING))
    assert asked == [1, 1, 1]


def test_lots_are_halved_until_they_fit_a_server(tmp_path: Path) -> None:
    class Small(MemoryKeeper):
        def add_examples(
            self, examples: Sequence[examples_pb2.Example], request_id: str = "", *, reason: str = "", actor: str = ""
        ) -> examples_pb2.AddExamplesResponse:
            if len(examples) > 10:
                raise ServiceFailed("", "INVALID_ARGUMENT", "TOO_MANY_ITEMS")
            if sum(len(example.text) for example in examples) > 5_000:
                raise ServiceFailed("", "RESOURCE_EXHAUSTED")
            return super().add_examples(examples, request_id, reason=reason, actor=actor)

    path = rows(tmp_path / "a.jsonl", *(benign(number) for number in range(60)), {**benign(0), "text": "x" * 6_000})
    keeper = Small()
    counts, rejected = run(keeper, path)
    assert (counts.stored, rejected) == (60, [(61, "too_large")])


def failing(error: Exception) -> Callable[..., None]:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    "error",
    [
        ServiceFailed("gone", "UNAVAILABLE"),
        ServiceFailed("no", "PERMISSION_DENIED", "PERMISSION_DENIED"),
        ServiceFailed("late", "DEADLINE_EXCEEDED"),
    ],
)
def test_a_fault_that_is_no_rows_ends_the_import(
    tmp_path: Path, error: ServiceFailed, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = MemoryKeeper()
    monkeypatch.setattr(keeper, "add_examples", failing(error))
    with pytest.raises(ServiceFailed):
        run(keeper, rows(tmp_path / "a.jsonl", benign(1), benign(2)))


def test_one_row_over_a_limit_of_one_request_is_rejected_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = MemoryKeeper()
    monkeypatch.setattr(keeper, "add_examples", failing(TooManyItems("too many")))
    assert run(keeper, rows(tmp_path / "a.jsonl", benign(1)))[1] == [(1, "too_large")]


def test_too_many_bad_rows_end_the_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "MOST_REJECTED", 5)
    path = rows(tmp_path / "a.jsonl", *([1] * 10))
    with pytest.raises(DataRejected, match="over 5 rows are rejected"):
        run(MemoryKeeper(), path)


def test_who_may_not_read_the_revision_still_learns_what_is_new(tmp_path: Path) -> None:
    path = rows(tmp_path / "a.jsonl", *(benign(number) for number in range(200)))
    assert run(MemoryKeeper(), path, known=None)[0].added == 200


# The file of rejects.


def test_the_rejects_hold_rows_only_when_asked(tmp_path: Path) -> None:
    path, out = tmp_path / "a.jsonl", tmp_path / "rejects.jsonl"
    bad = {"text": "secret \ud800", "label": "benign"}
    rows(path, bad, benign(1))
    for include in (False, True):
        with open_rejects(out, [path], include_rows=include) as rejected:
            Import(MemoryKeeper(), 0, rejected).run(ExampleFile(source_of(path)))
        said = json.loads(out.read_bytes())
        assert (said["file"], said["row"], said["reason"]) == (str(path), 1, "invalid_example")
        assert ("secret" in out.read_text()) is include
        assert said.get("content") == (bad if include else None)


def test_rejects_never_replace_what_is_imported(tmp_path: Path) -> None:
    from classifier.errors import InvalidSetting

    path = rows(tmp_path / "a.jsonl", benign(1))
    with pytest.raises(InvalidSetting, match="would replace"), open_rejects(tmp_path / "." / "a.jsonl", [path]):
        pass
    with pytest.raises(InvalidSetting, match="folder"), open_rejects(tmp_path / "no" / "r.jsonl", [path]):
        pass
    assert path.stat().st_size > 0


def test_rows_that_no_json_can_show_are_left_out_of_the_rejects(tmp_path: Path) -> None:
    out = tmp_path / "rejects.jsonl"
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with open_rejects(out, [], include_rows=True) as rejected:
        rejected(Rejection("a", 1, "wrong_type", "detail", {"text": deep}))
        rejected(Rejection("a", 2, "wrong_type", "detail", {"text": b"\xff"}))
    assert [json.loads(line)["content"] for line in out.read_text().splitlines()] == [None, {"text": "b'\\xff'"}]


# Export.


def test_an_export_holds_what_was_asked_for_and_not_the_bundles_own(tmp_path: Path) -> None:
    keeper = MemoryKeeper()
    run(keeper, rows(tmp_path / "a.jsonl", benign(1, source="a"), benign(2, source="b", state="pending")))
    run(keeper, rows(tmp_path / "b.jsonl", {"text": "Play", **ATTACK, "source": "a"}, benign(4, source="a")))
    keeper.revoke(Example("question 4", Label.BENIGN).id)
    seed = Example("of the bundle", Label.BENIGN, source="seed").at_revision(1)
    keeper.held[seed.id] = seed

    def texts(wanted: Wanted) -> list[str]:
        return [each.text for each in stored_examples(keeper, wanted)]

    assert texts(Wanted()) == ["question 1", "question 2", "Play"]
    assert texts(Wanted(state=State.REVOKED)) == ["question 4"]
    assert texts(Wanted(state=State.PENDING)) == ["question 2"]
    assert texts(Wanted(label=Label.EXTRACTION)) == ["Play"]
    assert texts(Wanted(source="a")) == ["question 1", "Play"]
    assert texts(Wanted(source="seed")) == ["of the bundle"]
    assert texts(Wanted(as_of=1)) == ["question 1", "question 2"]


def test_an_export_shows_one_revision_whatever_is_written_meanwhile(tmp_path: Path) -> None:
    keeper = MemoryKeeper()
    run(keeper, rows(tmp_path / "a.jsonl", *(benign(number) for number in range(1_200))))
    walk = stored_examples(keeper, Wanted())
    found = [next(walk)]
    run(keeper, rows(tmp_path / "b.jsonl", benign(5_000)))
    found += walk
    assert [each.text for each in found] == [f"question {number}" for number in range(1_200)]
