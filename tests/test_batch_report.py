"""A run's page: its figures are those of the rows, its names are only text, and it needs nothing but itself."""

import random
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from killing import command, write_log
from made_runs import CAPABILITIES, START, Scored, some_rows, write_run
from runs import home_of

from classifier.batch import frequent
from classifier.batch.distinct import Distinct
from classifier.batch.frequent import Frequent
from classifier.batch.names import shown
from classifier.batch.record import Place, Reject
from classifier.batch.report import write_report
from classifier.batch.summary import summarise
from classifier.batch.timeline import DAY, HOUR, MINUTE, Timeline
from classifier.errors import RunRefused
from classifier.interval import wilson

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></title><svg onload=alert(1)>",
    "&lt;b&gt;",
    "\u202egnp.exe\u2066",
    "nul\x00bell\x07esc\x1b[31mred",
    "line\nend\r\u2028\u200b",
    '=HYPERLINK("http://evil.example")',
    "x" * 1_024,
    "javascript:alert(1)",
]
ELEMENTS = {
    *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "div", "section", "span", "b", "bdi"),
    *("table", "thead", "tbody", "tr", "th", "td", "svg", "rect", "line", "text", "path", "circle"),
}
ATTRIBUTES = {
    *(
        "lang",
        "charset",
        "http-equiv",
        "content",
        "name",
        "class",
        "colspan",
        "viewbox",
        "role",
        "aria-label",
        "aria-hidden",
    ),
    *("x", "y", "x1", "x2", "y1", "y2", "width", "height", "rx", "r", "cx", "cy", "d", "text-anchor"),
}


class Page(HTMLParser):
    """What a reader of a page gets: tables and tooltips by the title above them, elements and attributes."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.tables: dict[str, list[list[str]]] = defaultdict(list)
        self.tooltips: dict[str, list[str]] = defaultdict(list)
        self.cards: list[str] = []
        self._title = self._text = ""
        self._row: list[str] = []
        self.source = (folder / "report.html").read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag in {"h2", "td", "th", "title", "b"}:
            self._text = ""
        if tag == "tr":
            self._row = []

    def handle_data(self, data: str) -> None:
        self._text += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "h2":
            self._title = self._text
        elif tag in {"td", "th"}:
            self._row.append(self._text)
        elif tag == "tr":
            self.tables[self._title].append(self._row)
        elif tag == "title":
            self.tooltips[self._title].append(self._text)
        elif tag == "b":
            self.cards.append(self._text)


def minutes(time: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time)).strftime("%Y-%m-%d %H:%M")


def seen(rows: Iterable[Scored]) -> tuple[str, str]:
    times = [row.time for row in rows if row.time is not None]
    return (minutes(min(times)), minutes(max(times))) if times else ("no time", "no time")


def main_technique(rows: Iterable[Scored]) -> str:
    counts = Counter(row.technique for row in rows if row.decision in {"flag", "review"})
    return min(counts, key=lambda name: (-counts[name], name), default="")


def test_the_pages_figures_are_those_of_the_rows_counted_one_by_one(tmp_path: Path) -> None:
    inputs = {f"{name}.jsonl": some_rows(400, seed) for seed, name in enumerate("pq")}
    rows = [row for own in inputs.values() for row in own]
    rejects = [Reject(Place("p.jsonl", 9_000 + n, 0), "broken_json", "mend it") for n in range(3)]
    write_report(write_run(tmp_path / "run", inputs, rejects=rejects, rows_per_part=70))
    found = Page(tmp_path / "run")
    decisions = Counter(row.decision for row in rows)
    wanted = [803, 800, *(decisions[one] for one in ("flag", "review", "allow", "abstain")), 3]
    assert [int(card.replace(",", "")) for card in found.cards] == wanted
    accounts = {name: [row for row in rows if row.account == name] for name in ("a", "b", "c")}
    flagged = {name: sum(row.decision == "flag" for row in own) for name, own in accounts.items()}
    for row in found.tables["Accounts with the most flagged requests"][1:]:
        own = accounts[row[0]]
        low, high = (100 * one for one in wilson(flagged[row[0]], len(own)))
        assert row[1:4] == [str(len(own)), str(flagged[row[0]]), str(sum(one.decision == "review" for one in own))]
        assert row[4] == f"{100 * flagged[row[0]] / len(own):.1f} % ({low:.1f} to {high:.1f})"
        assert row[6:] == [str(len({one.template for one in own})), main_technique(own), *seen(own)]
    listed = [row[0] for row in found.tables["Accounts with the most flagged requests"][1:]]
    assert listed == sorted(accounts, key=lambda name: (-flagged[name], -len(accounts[name]), name))
    for row in found.tables["Templates with the most requests"][1:]:
        own = [one for one in rows if one.template == row[0]]
        best = max(own, key=lambda one: -1.0 if one.abstention else one.probability)
        assert row[1:4] == [
            str(len(own)),
            str(len({one.account for one in own} - {""})),
            str(sum(one.decision == "flag" for one in own)),
        ]
        assert row[5:] == [main_technique(own), *seen(own), best.request_id]
    assert len(found.tables["Templates with the most requests"]) == 1 + 12
    for name, judged, of_flagged in found.tables["Capabilities"][1:]:
        place = CAPABILITIES.index(name)
        own = [row for row in rows if row.capabilities[place] >= 0.5 and not row.abstention]
        assert [judged, of_flagged] == [str(len(own)), str(sum(row.decision == "flag" for row in own))]
    techniques = Counter((row.technique, row.decision) for row in rows)
    for name, flags, reviews in found.tables["Techniques"][1:]:
        assert [flags, reviews] == [str(techniques[name, "flag"]), str(techniques[name, "review"])]
    assert found.tables["Not judged"][1:] == [["UNSUPPORTED_LANGUAGE", str(decisions["abstain"])]]
    assert found.tables["Rejected"][1:] == [["broken_json", "3"]]
    assert {row[0] for row in found.tables["Inputs"][1:]} == set(inputs)
    assert sum(int(row[1]) for row in found.tables["Inputs"][1:]) == 803


def test_the_charts_hold_every_request_that_has_a_time(tmp_path: Path) -> None:
    rows = some_rows(600, 5)
    write_report(write_run(tmp_path / "run", {"a.jsonl": rows}))
    found = Page(tmp_path / "run")
    wanted: Counter[tuple[str, str]] = Counter()
    for row in rows:
        if row.time is not None:
            wanted[minutes(row.time - row.time % (6 * HOUR)), row.decision] += 1
    drawn = {}
    for tip in found.tooltips["Decisions over time"]:
        when, text = tip.rsplit(": ", 1)
        name, number = text.split()
        drawn[when, name] = int(number)
    assert drawn == dict(wanted)
    judged = sum(int(tip.split()[-1]) for tip in found.tooltips["Scores"])
    assert judged == sum(not row.abstention for row in rows)
    assert f"{sum(row.time is None for row in rows)} requests have no time" in found.source


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_from_the_log_is_text_and_never_markup(tmp_path: Path, name: str) -> None:
    rows = [Scored(n, 0.95, account=name, request_id=name, technique=name, template=name) for n in range(30)]
    write_report(write_run(tmp_path / "run", {f"{name}.jsonl": rows}, identity={"where": [f"account = {name}"]}))
    found = Page(tmp_path / "run")
    assert found.elements <= ELEMENTS
    assert found.attributes <= ATTRIBUTES
    assert not [letter for letter in found.source if not letter.isprintable() and letter != "\n"]
    assert found.tables["Accounts with the most flagged requests"][1][0] == shown(name, 40)
    assert found.tables["Inputs"][1][0] == shown(f"{name}.jsonl", 100)


def test_a_file_name_that_is_no_unicode_can_be_shown(tmp_path: Path) -> None:
    write_report(write_run(tmp_path / "run", {"a\udcff.jsonl": some_rows(5, 1)}))
    assert Page(tmp_path / "run").tables["Inputs"][1][0] == "a\\udcff.jsonl"


def test_the_page_asks_for_nothing_and_may_run_nothing(tmp_path: Path) -> None:
    write_report(write_run(tmp_path / "run", {"a.jsonl": some_rows(50, 2)}))
    found = Page(tmp_path / "run")
    assert not found.elements & {"script", "link", "img", "iframe", "object", "a", "form", "base"}
    assert not [word for word in ("http:", "https:", "url(", "@import", "src=", "href=") if word in found.source]
    assert "default-src 'none'" in found.source
    assert "prefers-color-scheme: dark" in found.source
    assert "@media print" in found.source


def test_no_prompt_is_in_the_page_of_a_run_that_keeps_its_prompts(tmp_path: Path) -> None:
    rows = [Scored(n, 0.95, prompt=f"zyzzyva {n}") for n in range(10)]
    write_report(write_run(tmp_path / "run", {"a.jsonl": rows}, prompts=True))
    assert "zyzzyva" not in Page(tmp_path / "run").source


def test_the_same_run_has_the_same_page(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {"a.jsonl": some_rows(300, 3)})
    pages = []
    for _ in range(2):
        write_report(folder)
        pages.append((folder / "report.html").read_bytes())
    assert pages[0] == pages[1]
    assert {path.name for path in folder.iterdir()} == {"scores", "rejects", "run.json", "report.html"}


def test_a_run_without_any_scored_row_has_a_page(tmp_path: Path) -> None:
    rejects = [Reject(Place("a.jsonl", 0, 0), "broken_json", "mend it")]
    write_report(write_run(tmp_path / "run", {"a.jsonl": []}, rejects=rejects))
    found = Page(tmp_path / "run")
    assert found.cards == ["1", "0", "0", "0", "0", "0", "1"]
    assert found.tables["Accounts with the most flagged requests"][1:] == [["none"]]
    assert "No scored request has a time" in found.source


def test_the_page_of_an_unfinished_run_says_so(tmp_path: Path) -> None:
    write_report(write_run(tmp_path / "run", {"a.jsonl": some_rows(5, 1)}, state="limited"))
    assert "The run is limited: not all of the input is in here." in Page(tmp_path / "run").source


def test_a_folder_that_holds_no_run_gets_no_page(tmp_path: Path) -> None:
    with pytest.raises(RunRefused, match=r"has no run\.json"):
        write_report(tmp_path)
    folder = write_run(tmp_path / "run", {"a.jsonl": some_rows(5, 1)})
    for part in (folder / "scores").iterdir():
        part.unlink()
    with pytest.raises(RunRefused, match="holds no part"):
        write_report(folder)
    assert not (folder / "report.html").exists()


def test_a_wild_clock_is_counted_and_does_not_stretch_the_time_that_is_shown(tmp_path: Path) -> None:
    rows = [Scored(n, 0.1, time=START + n * 10**6) for n in range(5_000)]
    rows += [Scored(5_000, 0.1, time=0), Scored(5_001, 0.1, time=253_402_300_000_000_000)]
    summary = summarise(write_run(tmp_path / "run", {"a.jsonl": rows}, rows_per_part=5_002))
    assert summary.timeline is not None
    assert summary.timeline.outside == 2
    assert summary.timeline.counts.sum(axis=0)[0] == 5_000
    assert summary.timeline.width == MINUTE


@pytest.mark.parametrize("days", [0.01, 1, 14, 45, 400, 9_000])
def test_bins_are_few_and_lose_nothing(days: float) -> None:
    chance = np.random.default_rng(1)
    timeline = Timeline(2)
    for _ in range(5):
        times = START + chance.integers(0, int(days * DAY), 40_000)
        timeline.add(times, np.stack([np.ones(40_000, bool), times % 2 == 0], axis=1))
    bins = timeline.bins()
    assert bins is not None
    assert len(bins.counts) <= 100
    assert bins.counts[:, 0].sum() + bins.outside == 200_000
    assert bins.width % MINUTE == 0
    assert bins.start <= START + DAY


def test_the_heaviest_keys_are_exact_while_all_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frequent, "_WAITING_ROWS", 50)
    chance = random.Random(4)
    keys, sums = Frequent(("rows", "flagged"), most_keys=100), Counter[str]()
    for _ in range(60):
        names = [f"k{min(int(chance.paretovariate(1)), 150)}" for _ in range(40)]
        sums.update(names)
        keys.add(pa.array(names), {"rows": pa.array([1] * 40), "flagged": pa.array([False] * 40)})
    table = keys.table()
    assert dict(zip(table["key"].to_pylist(), table["rows"].to_pylist(), strict=True)) == dict(sums)
    assert keys.unseen == {"rows": 0, "flagged": 0}


@pytest.mark.parametrize("seed", range(5))
def test_keys_that_were_let_go_have_no_more_than_is_said(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(frequent, "_WAITING_ROWS", 50)
    chance = random.Random(seed)
    keys, rows, flagged = Frequent(("rows", "flagged"), most_keys=40), Counter[str](), Counter[str]()
    for _ in range(200):
        names = [f"k{int(chance.paretovariate(0.6))}" for _ in range(40)]
        flags = [chance.random() < 0.1 for _ in names]
        rows.update(names)
        flagged.update(name for name, flag in zip(names, flags, strict=True) if flag)
        keys.add(pa.array(names), {"rows": pa.array([1] * 40), "flagged": pa.array(flags)})
    table = keys.table()
    held = {row["key"]: row for row in table.to_pylist()}
    assert len(held) <= 80
    for name, true in (("rows", rows), ("flagged", flagged)):
        bound = keys.unseen[name]
        assert all(number <= bound for key, number in true.items() if key not in held)
        assert all(row[name] <= true[key] <= row[name] + bound for key, row in held.items())
    assert keys.unseen["rows"] > 0
    assert max(rows, key=lambda key: rows[key]) in held


def test_long_keys_count_for_what_they_take() -> None:
    keys = Frequent(("rows",), most_bytes=200_000)
    for part in range(20):
        names = [f"{part}-{number}-{'x' * 1_000}" for number in range(10_000)]
        keys.add(pa.array(names), {"rows": pa.array([1] * len(names))})
    assert keys.table().nbytes < 500_000
    assert keys.unseen["rows"] >= 1


def test_long_keys_do_not_wait_for_many_rows() -> None:
    keys = Frequent(["rows"], most_keys=100, most_bytes=2**20)
    before = pa.total_allocated_bytes()
    for number in range(40):
        names = pa.array([f"{number}-{place}".ljust(1_024, "x") for place in range(1_000)])
        keys.add(names, {"rows": pa.array(np.ones(len(names), np.int64))})
        del names
        assert pa.total_allocated_bytes() - before < 8 * 2**20


def test_different_names_are_counted_exactly_while_few_and_closely_when_many() -> None:
    few, many = Distinct(exact=1_000), Distinct(exact=4_096)
    few.add(str(number % 1_000) for number in range(5_000))
    many.add(str(number % 300_000) for number in range(400_000))
    assert (few.count, few.is_exact) == (1_000, True)
    assert not many.is_exact
    assert many.count == pytest.approx(300_000, rel=0.08)  # five standard errors


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (0, 0, 0, 1)],
)
def test_intervals_are_wilsons(hits: int, total: int, low: float, high: float) -> None:
    assert wilson(hits, total) == pytest.approx((low, high), abs=1e-4)


def test_a_run_of_the_command_writes_its_page_and_report_writes_it_anew(tmp_path: Path) -> None:
    path = write_log(tmp_path / "log.jsonl", 60)
    environment = home_of(tmp_path)
    subprocess.run(command([path], tmp_path / "out", 50), env=environment, check=True, capture_output=True)
    whole = Page(tmp_path / "out")
    assert int(whole.cards[0]) == sum(1 for line in path.read_text().split("\n") if line)
    (tmp_path / "out" / "report.html").unlink()
    verb = [sys.executable, "-m", "classifier.cli", "rescore", "report", str(tmp_path / "out")]
    done = subprocess.run(verb, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == str(tmp_path / "out" / "report.html")
    assert Page(tmp_path / "out").source == whole.source
