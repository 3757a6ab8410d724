"""The review queue: mixed as asked, of prompts that nobody decided, from scored logs and from plain texts."""

import gzip
import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from classifier.batch.inputs import find
from classifier.batch.plan import Plan
from classifier.batch.run import run
from classifier.batch.scoring import Scoring
from classifier.batch.shapes import Shape
from classifier.desk.choosing import POOL, Chooser, Seen, Shares, Why, farthest_first, mixed
from classifier.desk.queue import Item, Means, make_queue, means_of, queue_of_run, seen_of
from classifier.errors import DataRejected, InvalidSetting, RunRefused
from classifier.policy import Thresholds
from classifier.runtime import Runtime
from classifier.verdict import Decision
from index.change import Act, Choice
from index.change import Decision as Decided
from index.contract import ExampleStore
from index.example import Example, Label, State, content_hash
from index.store import open_store

THRESHOLDS = Thresholds(0.5, 0.9)
PROMPTS = [
    *(
        f"Write {n} diverse instructions about {topic} and answer each as a JSON line."
        for n, topic in enumerate("abcdefgh", 5)
    ),
    *(f"How do I {verb} a list of numbers in Python?" for verb in ("sort", "reverse", "sum", "shuffle")),
    "What is the capital of Peru?",
    "Summarise the minutes of our last meeting in three sentences, please.",
    "Translate the menu of the harbour restaurant for our guests from Lima.",
    "Why does my sourdough bread not rise in the winter?",
    "Play both sides of a dialogue between a student and a tutor, at least ten turns, and number them.",
    "Grade the following answer from 1 to 10 by this rubric, and explain each point.",
]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ExampleStore]:
    opened = open_store(tmp_path / "examples.db")
    yield opened
    opened.close()


@pytest.fixture
def means(runtime: Runtime, store: ExampleStore) -> Means:
    return means_of(runtime.scorer, store)


def seen(number: int, probability: float, template: str = "", decision: Decision | None = None) -> Seen:
    found = decision or THRESHOLDS.decide(probability)
    return Seen(f"row {number}", probability, found, template or f"template {number}", f"prompt {number}")


# Choosing.


def test_the_uncertain_ones_are_the_nearest_to_a_threshold_one_of_each_template() -> None:
    chooser = Chooser(2, THRESHOLDS, shares=Shares(1, 0, 0))
    rows = [seen(n, n / 1_000) for n in range(1_000)] + [seen(2_000, 0.5, "again"), seen(2_001, 0.4999, "again")]
    for one in reversed(rows):
        chooser.add(one)
    pools = chooser.pools()
    near = [one.probability for one in pools[Why.UNCERTAIN]]
    assert sorted(near[:3]) == [0.5, 0.5, 0.9]
    assert len(near) == 2 * POOL
    assert sum(one.template == "again" for one in pools[Why.UNCERTAIN]) == 1
    assert pools[Why.DIVERSE] == pools[Why.RANDOM] == []


def test_what_was_not_judged_is_never_uncertain_but_may_be_drawn() -> None:
    chooser = Chooser(6, THRESHOLDS)
    for n in range(20):
        chooser.add(seen(n, 0.5, decision=Decision.ABSTAIN))
    pools = chooser.pools()
    assert pools[Why.UNCERTAIN] == []
    assert pools[Why.DIVERSE]
    assert pools[Why.RANDOM]


def test_a_flood_of_one_template_is_one_diverse_prompt_and_most_random_ones() -> None:
    chooser = Chooser(30, THRESHOLDS)
    for n in range(5_000):
        chooser.add(seen(n, 0.1, "flood" if n % 50 else ""))
    pools = chooser.pools()
    assert Counter(one.template for one in pools[Why.DIVERSE])["flood"] <= 1
    assert len({one.template for one in pools[Why.DIVERSE]}) == len(pools[Why.DIVERSE]) > 20
    assert sum(one.template == "flood" for one in pools[Why.RANDOM]) > 0.8 * len(pools[Why.RANDOM])


def test_random_ones_are_drawn_evenly_and_alike_for_a_seed_whatever_the_order() -> None:
    rows = [seen(n, 0.1) for n in range(400)]
    counts = Counter[str]()
    for seed in range(200):
        chooser = Chooser(10, THRESHOLDS, shares=Shares(0, 0, 1), seed=seed)
        for one in rows:
            chooser.add(one)
        drawn = chooser.pools()[Why.RANDOM]
        counts.update(one.name for one in drawn)
        again = Chooser(10, THRESHOLDS, shares=Shares(0, 0, 1), seed=seed)
        for one in rows[::-1]:
            again.add(one)
        assert again.pools()[Why.RANDOM] == drawn
    halves = [sum(counts[one.name] for one in half) for half in (rows[:200], rows[200:])]
    assert abs(halves[0] - halves[1]) < 400
    assert len(counts) == 400


def test_shares_are_kept_and_add_up() -> None:
    assert Shares().counts(10) == {Why.UNCERTAIN: 5, Why.DIVERSE: 3, Why.RANDOM: 2}
    for size in range(1, 40):
        assert sum(Shares(1, 1, 1).counts(size).values()) == size
    for wrong in ((0, 0, 0), (-1, 1, 1), (float("nan"), 1, 1), (float("inf"), 1, 1)):
        with pytest.raises(InvalidSetting, match="shares"):
            Shares(*wrong)
    for size in (0, 1_001):
        with pytest.raises(InvalidSetting, match="1,000"):
            Chooser(size, THRESHOLDS)


def test_a_kind_that_has_too_few_is_made_up_for_and_nothing_comes_twice() -> None:
    both = [seen(n, 0.5) for n in range(4)]
    pools = {Why.UNCERTAIN: both[:1], Why.DIVERSE: both, Why.RANDOM: both[1:3]}
    found = mixed(pools, {Why.UNCERTAIN: 2, Why.DIVERSE: 1, Why.RANDOM: 1}, 4)
    assert sorted(one.name for _, one in found) == sorted(one.name for one in both)
    assert Counter(why for why, _ in found) == {Why.UNCERTAIN: 1, Why.DIVERSE: 2, Why.RANDOM: 1}


def test_a_reviewer_who_stops_early_has_seen_every_kind() -> None:
    pools = {why: [seen(100 * number + n, 0.5) for n in range(10)] for number, why in enumerate(Why)}
    found = mixed(pools, Shares().counts(20), 20)
    assert {why for why, _ in found[:4]} == set(Why)


def test_the_farthest_comes_first() -> None:
    rows = np.array([[1, 0], [0.99, 0.141], [0, 1], [-1, 0], [0.98, 0.199]], np.float32)
    assert list(farthest_first(rows))[:3] == [0, 3, 2]
    assert sorted(farthest_first(rows)) == list(range(5))
    assert list(farthest_first(rows[:0])) == []


# Queues of texts.


def queue(means: Means, prompts: Sequence[str], size: int = 8, seed: int = 0) -> list[Item]:
    return make_queue(seen_of(prompts, means), Chooser(size, THRESHOLDS, seed=seed), means)


def test_each_item_says_what_a_reviewer_needs(runtime: Runtime, means: Means) -> None:
    items = queue(means, PROMPTS)
    assert len(items) == 8
    verdicts = runtime.scorer.score([item.prompt for item in items]).verdicts
    for item, verdict in zip(items, verdicts, strict=True):
        assert item.content_hash == content_hash(item.prompt)
        assert item.decision == verdict.decision
        assert item.probability == pytest.approx(verdict.extraction_probability, abs=1e-5)
        assert item.nearest[0].example.text
        assert item.nearest[0].cosine >= item.nearest[-1].cosine
        assert item.prompt not in item.reason
        assert item.technique
    assert {item.why for item in items} == set(Why)
    harvests = [item for item in queue(means, PROMPTS, 18) if item.prompt.startswith("Write")]
    assert all(item.label is Label.EXTRACTION for item in harvests)


def test_what_is_decided_or_stored_is_left_out(store: ExampleStore, means: Means) -> None:
    now = datetime.now(UTC)
    choices = zip(PROMPTS[:3], Choice, strict=True)
    store.decide([Decided(content_hash(text), choice, "ada", "", now) for text, choice in choices])
    pending = Example(PROMPTS[3], Label.EXTRACTION, "self_chat", state=State.PENDING)
    revoked = Example(PROMPTS[4], Label.BENIGN)
    store.add([pending, revoked, Example(PROMPTS[5], Label.BENIGN)], Act("ada"))
    store.revoke([revoked.id], Act("ada"))
    items = queue(means, PROMPTS, 100)
    assert {item.prompt for item in items} == set(PROMPTS[6:])


def test_equal_prompts_and_those_that_cannot_be_scored_come_once_or_not_at_all(means: Means) -> None:
    items = queue(means, [*PROMPTS, *PROMPTS, "", "  \u200b", "x" * 100_001, "\ud800"], 100)
    assert Counter(item.prompt for item in items) == dict.fromkeys(PROMPTS, 1)


def test_a_seed_makes_the_same_queue_again(means: Means) -> None:
    assert queue(means, PROMPTS, 6, 3) == queue(means, PROMPTS[::-1], 6, 3)
    drawn = {tuple(item.prompt for item in queue(means, PROMPTS, 6, seed)) for seed in range(4)}
    assert len(drawn) > 1


def test_no_prompts_make_an_empty_queue(means: Means) -> None:
    assert queue(means, []) == []


# Queues of scored logs.


def scored(runtime: Runtime, path: Path, output: Path, **options: Any) -> Path:
    run(
        Plan(sources=find([str(path)]), output=output, **options),
        Scoring(runtime),
        threading.Event(),
        lambda done: None,
    )
    return output


def lines(prompts: Sequence[str], field: str = "prompt") -> str:
    return "".join(json.dumps({field: prompt, "account": "acct_1"}) + "\n" for prompt in prompts)


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "parquet", "csv", "included"])
def test_prompts_are_found_again_in_the_files_that_were_scored(
    form: str, runtime: Runtime, means: Means, tmp_path: Path
) -> None:
    path = tmp_path / f"log.{'jsonl' if form == 'included' else form}"
    if form == "parquet":
        pq.write_table(pa.table({"prompt": PROMPTS}), path, row_group_size=4)
    elif form == "csv":
        path.write_text("prompt\n" + "".join(f'"{prompt}"\n' for prompt in PROMPTS))
    elif form == "jsonl.gz":
        path.write_bytes(gzip.compress(lines(PROMPTS).encode()))
    else:
        path.write_text("no json\n" + lines([*PROMPTS, *PROMPTS]))
    output = scored(runtime, path, tmp_path / "out", include_prompt=form == "included", max_rejected=1.0)
    if form == "included":
        path.unlink()
    items = queue_of_run(output, Chooser(100, THRESHOLDS), means)
    assert sorted(item.prompt for item in items) == sorted(PROMPTS)
    few = queue_of_run(output, Chooser(2, THRESHOLDS), means)
    assert len({item.prompt for item in few} & set(PROMPTS)) == 2


def test_a_mapped_log_and_one_of_many_requests_in_a_line_are_read_as_they_were(
    runtime: Runtime, means: Means, tmp_path: Path
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(lines(PROMPTS, "odd"))
    output = scored(runtime, path, tmp_path / "out", shape=Shape.mapped({"prompt": "odd"}))
    assert len(queue_of_run(output, Chooser(5, THRESHOLDS), means)) == 5
    spans = [
        {"name": "chat", "attributes": {"gen_ai.operation.name": "chat", "gen_ai.prompt": prompt}} for prompt in PROMPTS
    ]
    path = tmp_path / "spans.jsonl"
    path.write_text(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans[:6]}]}]}) + "\n")
    output = scored(runtime, path, tmp_path / "spans", max_rejected=1.0)
    found = [item.prompt for item in queue_of_run(output, Chooser(4, THRESHOLDS), means)]
    assert len(set(found)) == 4


@pytest.mark.parametrize("mishap", ["gone", "changed"])
def test_prompts_that_cannot_be_found_say_how_to_get_them(
    mishap: str, runtime: Runtime, means: Means, tmp_path: Path
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(lines(PROMPTS))
    output = scored(runtime, path, tmp_path / "out")
    if mishap == "gone":
        path.unlink()
    else:
        path.write_text(lines(PROMPTS[:3]))
    with pytest.raises(DataRejected, match="--include-prompt"):
        queue_of_run(output, Chooser(3, THRESHOLDS), means)


def test_a_folder_that_is_no_run_is_refused(means: Means, tmp_path: Path) -> None:
    with pytest.raises(RunRefused):
        queue_of_run(tmp_path, Chooser(3, THRESHOLDS), means)
