"""Two runs compared: what changed, by whom and by what, the rows themselves, and which runs cannot be compared."""

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import variants
from made_runs import Scored, rescored, some_rows, write_run

from classifier.batch.compare import open_run
from classifier.batch.diff import Difference, compare
from classifier.durable import TEMPORARY
from classifier.errors import InvalidSetting, RunRefused

OTHER: dict[str, object] = {"bundle": "0.2.0+bbbb", "examples": "two", "index_revision": 2}


def stillwatch(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "STILLWATCH_HOME": str(home)}
    verb = [sys.executable, "-m", "classifier.cli", *arguments]
    return subprocess.run(verb, env=environment, check=False, capture_output=True, text=True, cwd=home)


def kind(before: str, after: str) -> str:
    return "flagged" if after == "flag" else "unflagged" if before == "flag" else "other"


def came_near(before: Scored, after: Scored) -> str:
    known = {name for name, _, _ in before.nearest}
    return next((name for name, _, _ in after.nearest if name not in known), "")


def by(found: Difference, grouping: str) -> dict[str, tuple[int, dict[str, int]]]:
    return {one.key: (one.changed, dict(one.kinds)) for one in found.groups[grouping]}


def tally(pairs: list[tuple[str, str]]) -> dict[str, tuple[int, dict[str, int]]]:
    found = {}
    for key in {key for key, _ in pairs}:
        kinds = Counter(one for own, one in pairs if own == key)
        found[key] = (kinds.total(), {name: kinds[name] for name in ("flagged", "unflagged", "other")})
    return found


@pytest.mark.parametrize("seed", range(6))
def test_a_comparison_says_what_joining_row_by_row_says(tmp_path: Path, seed: int) -> None:
    first = {f"{name}.jsonl": some_rows(300, seed * 10 + place) for place, name in enumerate("xyz")}
    second = {name: rescored(rows, seed) for name, rows in first.items()}
    first = {name: rows[:-7] if name.startswith("y") else rows for name, rows in first.items()}
    write_run(tmp_path / "a", first, rows_per_part=37)
    write_run(tmp_path / "b", second, rows_per_part=101, identity=OTHER)
    found = compare(tmp_path / "a", tmp_path / "b", tmp_path / "changed.parquet", listed=1_000)
    sides = [{(name, one.row, one.item): one for name, rows in run.items() for one in rows} for run in (first, second)]
    both = [(place, sides[0][place], sides[1][place]) for place in sorted(sides[0]) if place in sides[1]]
    changed = [(place, a, b) for place, a, b in both if a.decision != b.decision]
    assert found.compared == len(both)
    assert (found.only_before, found.only_after) == (len(sides[0]) - len(both), len(sides[1]) - len(both))
    assert min(found.only_before, found.only_after, len(changed)) > 0
    assert found.matrix == Counter((a.decision, b.decision) for _, a, b in both)
    kinds = [(a, b, kind(a.decision, b.decision)) for _, a, b in changed]
    assert by(found, "account") == tally([(a.account, one) for a, _, one in kinds])
    assert by(found, "template") == tally([(a.template, one) for a, _, one in kinds])
    assert by(found, "example") == tally([(came_near(a, b), one) for a, b, one in kinds])
    assert by(found, "file") == tally([(place[0], kind(a.decision, b.decision)) for place, a, b in changed])
    severity = ["abstain", "allow", "review", "flag"]
    severer = [(a if severity.index(a.decision) > severity.index(b.decision) else b, one) for a, b, one in kinds]
    expected = tally([(row.technique if row.decision in {"review", "flag"} else "", one) for row, one in severer])
    assert by(found, "technique") == expected
    moves = [b.probability - a.probability for _, a, b in both if not (a.abstention or b.abstention)]
    assert (found.moves.judged, found.moves.unmoved) == (len(moves), moves.count(0.0))
    assert (found.moves.up, found.moves.down) == (sum(one > 0 for one in moves), sum(one < 0 for one in moves))
    assert found.moves.largest == max(map(abs, moves))
    assert found.moves.mean == pytest.approx(sum(map(abs, moves)) / len(moves))
    middle = sorted(map(abs, moves))[-(-len(moves) // 2) - 1]
    assert found.moves.quantiles["0.5"] == pytest.approx(middle, abs=1.01e-4)
    rows = pq.read_table(tmp_path / "changed.parquet").to_pylist()
    assert [(row["file"], row["row"], row["item"]) for row in rows] == [place for place, _, _ in changed]
    assert [(row["decision_a"], row["decision_b"]) for row in rows] == [(a.decision, b.decision) for _, a, b in changed]
    assert [row["extraction_probability_b"] for row in rows] == [b.probability for _, _, b in changed]
    assert [row["request_id"] for row in rows] == [a.request_id for _, a, _ in changed]


def test_a_change_of_thresholds_alone_is_told_from_a_change_of_scores(tmp_path: Path) -> None:
    rows = [Scored(0, 0.85), Scored(1, 0.2)]
    write_run(tmp_path / "a", {"x": rows})
    moved = [replace(rows[0], flag_from=0.8), replace(rows[1], probability=0.95)]
    write_run(tmp_path / "b", {"x": moved}, identity={"flag_threshold": 0.8})
    found = compare(tmp_path / "a", tmp_path / "b")
    assert (found.changed, found.by_threshold) == (2, 1)
    assert any("flag 0.9 and 0.8" in note for note in found.notes)


def test_runs_of_one_bundle_and_the_same_examples_are_said_to_be_so(tmp_path: Path) -> None:
    rows = some_rows(50, 1)
    for name in "ab":
        write_run(tmp_path / name, {"x": rows})
    found = compare(tmp_path / "a", tmp_path / "b", tmp_path / "changed.parquet")
    assert found.changed == 0
    assert "both runs were scored with the same bundle, 0.1.0+aaaa" in found.notes
    assert "both runs were scored with the same examples" in found.notes
    assert "nothing that decides a score differs, so no decision should change" in found.notes
    table = pq.read_table(tmp_path / "changed.parquet")
    assert len(table) == 0
    assert {"file", "row", "decision_a", "decision_b"} <= set(table.column_names)


def test_what_explains_a_difference_is_said(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"x": some_rows(50, 1)}, state="limited")
    changed = {"index_revision": 7, "sample": 0.5, "seed": 1}
    write_run(tmp_path / "b", {"x": some_rows(50, 1)}, identity=changed)
    notes = "; ".join(compare(tmp_path / "a", tmp_path / "b").notes)
    assert "run A is limited" in notes
    assert "the same examples, although the revisions are 1 and 7" in notes
    assert "chose rows differently" in notes


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        ({"x": 5, "z": 5}, {}, r"have different inputs: .*a read y, which .*b did not"),
        ({"x": 5, "y": 5, "z": 5}, {}, r"b read z, which .*a did not"),
        ({"x": 5, "y": 5}, {"stamp": "2-9"}, r"x was 1-1 \(size and version\) for .*a and 2-9 for .*b"),
        ({"x": 5, "y": 5}, {"identity": {"shape": ["plain", {}]}}, r"shape was detected for .*a and \['plain', \{\}\]"),
    ],
)
def test_runs_over_different_inputs_are_refused_by_what_differs(
    tmp_path: Path, inputs: dict[str, int], options: dict[str, Any], message: str
) -> None:
    write_run(tmp_path / "a", {name: some_rows(5, 1) for name in "xy"})
    write_run(tmp_path / "b", {name: some_rows(count, 1) for name, count in inputs.items()}, **options)
    with pytest.raises(RunRefused, match=message):
        compare(tmp_path / "a", tmp_path / "b", tmp_path / "changed.parquet")
    assert not (tmp_path / "changed.parquet").exists()


def test_rows_out_of_their_order_are_refused_and_leave_no_file(tmp_path: Path) -> None:
    rows = some_rows(50, 1)
    write_run(tmp_path / "a", {"x": rows})
    write_run(tmp_path / "b", {"x": [*rows[:20], *reversed(rows[20:])]})
    with pytest.raises(RunRefused, match="out of their input's order"):
        compare(tmp_path / "a", tmp_path / "b", tmp_path / "changed.parquet")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(TEMPORARY) or path.suffix == ".parquet"]


def test_the_output_cannot_harm_a_run(tmp_path: Path) -> None:
    for name in "ab":
        write_run(tmp_path / name, {"x": some_rows(5, 1)})
    for output in (tmp_path / "b" / "scores" / "x.parquet", tmp_path, tmp_path / "nowhere" / "x.parquet"):
        with pytest.raises(InvalidSetting, match="name a file"):
            compare(tmp_path / "a", tmp_path / "b", output)
    assert open_run(tmp_path / "b").manifest.state == "done"


def test_only_what_both_runs_finished_is_compared(tmp_path: Path) -> None:
    rows = some_rows(40, 3)
    write_run(tmp_path / "a", {"x": rows, "y": rows})
    write_run(tmp_path / "b", {"x": rows[:10], "y": []}, identity=OTHER)
    found = compare(tmp_path / "a", tmp_path / "b")
    assert (found.compared, found.only_before, found.only_after) == (10, 70, 0)


def test_names_from_the_log_reach_the_terminal_only_as_visible_text(tmp_path: Path) -> None:
    name = "\x1b]0;owned\x07[red]\u202e"
    write_run(tmp_path / "a", {"x": [Scored(n, 0.1, account=name) for n in range(3)]})
    write_run(tmp_path / "b", {"x": [Scored(n, 0.95, account=name) for n in range(3)]}, identity=OTHER)
    done = stillwatch(tmp_path, "rescore", "diff", "a", "b")
    assert done.returncode == 0, done.stderr
    assert "\\x1b]0;owned\\x07[red]\\u202e" in done.stdout
    assert "\x1b]0" not in done.stdout
    assert "3 of 3 decisions changed (100.000%)" in done.stdout


def test_an_examples_effect_on_history_is_seen_before_it_is_promoted(tmp_path: Path) -> None:
    prompt = "Tell me how the old lighthouse keeper trims the lamp, in one line."
    home = variants.make_home(tmp_path)
    prompts = [prompt, "What is the capital of Peru?", prompt]
    rows = "".join(json.dumps({"prompt": one, "account": f"acct-{n}"}) + "\n" for n, one in enumerate(prompts))
    (home / "log.jsonl").write_text(rows)
    assert stillwatch(home, "rescore", "log.jsonl", "--output", "a").returncode == 0
    added = ["examples", "add", "--label", "extraction", "--technique", "self_chat", "--source", "analyst", prompt]
    assert stillwatch(home, *added).returncode == 0
    assert stillwatch(home, "rescore", "log.jsonl", "--output", "b").returncode == 0
    done = stillwatch(home, "rescore", "diff", "a", "b", "--json", "--output", "changed.parquet")
    found = json.loads(done.stdout)
    assert (found["compared"], found["changed"]) == (3, 2)
    assert [row["row"] for row in pq.read_table(home / "changed.parquet").to_pylist()] == [0, 2]
    assert [(one["key"], one["kinds"]["flagged"]) for one in found["groups"]["account"]] == [
        ("acct-0", 1),
        ("acct-2", 1),
    ]
    (example,) = found["groups"]["example"]
    assert example["key"].startswith("ex-")
    assert example["changed"] == 2
    assert any("same bundle" in note for note in found["notes"])
    assert not any("same examples" in note for note in found["notes"])


def test_an_input_that_is_named_like_a_verb_is_read_by_its_path(tmp_path: Path) -> None:
    home = variants.make_home(tmp_path)
    (home / "diff").mkdir()
    (home / "diff" / "log.jsonl").write_text('{"prompt": "Hi there"}\n')
    done = stillwatch(home, "rescore", "./diff", "--output", "out", "--json")
    assert json.loads(done.stdout)["counts"]["scored"] == 1
    wrong = stillwatch(home, "rescore", "diff", "out")
    assert wrong.returncode == 2
    assert "rescore diff" in wrong.stderr
