"""The life of examples on the wire: a real server, tokens of several people, every write and every refusal."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from serving import Server, running_server
from stillwatch.v1 import examples_pb2, review_pb2, verdict_pb2

from classifier.client import Client
from classifier.connect import Credentials
from classifier.errors import ServiceFailed
from classifier.tokens import Scope, new_token
from index.example import content_hash

ATTACK, BENIGN = examples_pb2.LABEL_EXTRACTION, examples_pb2.LABEL_BENIGN
PENDING, ACTIVE, REVOKED = (
    examples_pb2.EXAMPLE_STATE_PENDING,
    examples_pb2.EXAMPLE_STATE_ACTIVE,
    examples_pb2.EXAMPLE_STATE_REVOKED,
)
FLAG = verdict_pb2.DECISION_FLAG
ANALYST = frozenset({Scope.CLASSIFY, Scope.EXAMPLES_READ, Scope.EXAMPLES_WRITE, Scope.EXAMPLES_ACCEPT})
SCOPES = {
    "ada": ANALYST,
    "ben": ANALYST,
    "feeder": frozenset({Scope.EXAMPLES_READ, Scope.EXAMPLES_WRITE}),
    "reader": frozenset({Scope.EXAMPLES_READ}),
    "chief": frozenset(Scope),
}


def attack(text: str, **fields: Any) -> examples_pb2.Example:
    return examples_pb2.Example(**{"text": text, "label": ATTACK, "technique": "self_chat", **fields})


def refused(call: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[str, str]:
    with pytest.raises(ServiceFailed) as raised:
        call(*args, **kwargs)
    return raised.value.code, raised.value.reason


@dataclass(frozen=True)
class Office:
    """A server, and a client for each of the people that it knows."""

    server: Server
    people: dict[str, Client]

    def __getattr__(self, name: str) -> Client:
        return self.people[name]


def opened(folder: Path, **settings: Any) -> Iterator[Office]:
    folder.mkdir()
    made = {name: new_token(name, scopes) for name, scopes in SCOPES.items()}
    file = folder / "tokens.toml"
    file.write_text("\n".join(lines for _, lines in made.values()))
    with running_server(folder / "home", tokens_file=file, **settings) as server:
        people = {n: Client(server.address, credentials=Credentials(token=token)) for n, (token, _) in made.items()}
        yield Office(server, people)
        for client in people.values():
            client.close()


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """Examples are active when they are added."""
    yield from opened(tmp_path_factory.mktemp("office") / "open")


@pytest.fixture(scope="module")
def careful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """Examples wait for an acceptance."""
    yield from opened(tmp_path_factory.mktemp("careful") / "open", pending_by_default=True)


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """Examples wait for somebody else's acceptance."""
    yield from opened(tmp_path_factory.mktemp("strict") / "open", two_person_rule=True)


def test_a_pending_example_weighs_nothing_until_it_is_accepted_and_then_at_once(office: Office) -> None:
    text = "note which zanzibar ferry you would board, and every tide that you thought about"
    before = office.ada.classify(text)
    (added,) = office.ada.add_examples([attack(text, state=PENDING, licence="CC0-1.0")], reason="seen twice").examples
    assert (added.state, added.licence, added.author) == (PENDING, "CC0-1.0", "ada")
    assert office.ada.classify(text).verdict == before.verdict
    accepted = office.ben.accept_examples([added.id], reason="a template")
    assert [(e.id, e.state, e.text) for e in accepted.examples] == [(added.id, ACTIVE, "")]
    after = office.ada.classify(text)
    assert after.verdict.decision == FLAG
    assert after.provenance.index_revision == accepted.revision
    history = office.ada.get_example(added.id, with_history=True).history
    assert [(c.action, c.actor, c.reason, c.state) for c in history] == [
        (examples_pb2.CHANGE_ACTION_ADD, "ada", "seen twice", PENDING),
        (examples_pb2.CHANGE_ACTION_ACCEPT, "ben", "a template", ACTIVE),
    ]
    assert office.ada.get_example(added.id).history == []


def test_a_revoked_example_weighs_nothing_and_comes_back_when_it_is_restored(office: Office) -> None:
    text = "speak as both the lighthouse keeper and the gull, forty turns, and log each turn as JSON"
    (added,) = office.ada.add_examples([attack(text)]).examples
    flagged = office.ada.classify(text).verdict
    assert flagged.decision == FLAG
    office.ada.revoke_examples([added.id], reason="a false alarm")
    assert office.ada.classify(text).verdict.extraction_logit < flagged.extraction_logit - 5
    assert office.ada.get_example(added.id).example.state == REVOKED
    pending = office.ada.restore_examples([added.id])
    assert [e.state for e in pending.examples] == [PENDING]
    assert office.ada.classify(text).verdict.extraction_logit < flagged.extraction_logit - 5
    office.ada.accept_examples([added.id])
    again = office.ada.classify(text).verdict
    assert again.extraction_logit == pytest.approx(flagged.extraction_logit, abs=1e-3)


def test_relabelling_turns_the_decision_at_once(office: Office) -> None:
    text = "write the diary of a cooper in Cork, a page for each of his barrels, with his reasons"
    (added,) = office.ada.add_examples([attack(text)]).examples
    assert office.ada.classify(text).verdict.decision == FLAG
    done = office.ada.relabel_examples([examples_pb2.Relabel(id=added.id, label=BENIGN, capabilities=["writing"])])
    assert [(e.label, e.technique, list(e.capabilities)) for e in done.examples] == [(BENIGN, "", ["writing"])]
    assert office.ada.classify(text).verdict.decision == verdict_pb2.DECISION_ALLOW
    both = refused(office.ada.relabel_examples, [examples_pb2.Relabel(id=added.id, label=ATTACK)])
    assert both == ("INVALID_ARGUMENT", "INVALID_EXAMPLE")


def test_a_superseding_example_takes_the_others_place_in_one_revision(office: Office) -> None:
    (old,) = office.ada.add_examples(
        [attack("ask the oracle of Thule nine hundred riddles and keep all answers")]
    ).examples
    new = office.ada.supersede_example(old.id, attack("ask the oracle of Thule <N> riddles, keep all answers as JSON"))
    assert (new.example.state, new.example.author) == (ACTIVE, "ada")
    assert office.ada.get_example(old.id).example.state == REVOKED
    gone = office.ada.get_example(old.id, with_history=True).history[-1]
    assert (gone.action, gone.replacement_id) == (examples_pb2.CHANGE_ACTION_SUPERSEDE, new.example.id)
    assert gone.revision == office.ada.get_example(new.example.id).example.revision


def test_a_repeated_request_changes_nothing_and_another_one_under_its_id_is_refused(office: Office) -> None:
    made = office.ada.add_examples([attack(f"ring the bell of Ys {n} times", state=PENDING) for n in range(2)])
    first, second = (example.id for example in made.examples)
    once = office.ada.accept_examples([first], request_id="accept-1")
    again = office.ada.accept_examples([first], request_id="accept-1")
    assert [e.id for e in again.examples] == [e.id for e in once.examples]
    assert len(office.ada.get_example(first, with_history=True).history) == 2
    assert refused(office.ada.accept_examples, [second], request_id="accept-1")[1] == "INVALID_EXAMPLE"
    assert office.ada.get_example(second).example.state == PENDING


def test_what_cannot_be_done_to_one_example_is_done_to_none(office: Office) -> None:
    made = office.ada.add_examples([attack("count the herons of Lough Erne", state=PENDING)]).examples
    assert refused(office.ada.accept_examples, [made[0].id, "ex-none"]) == ("NOT_FOUND", "EXAMPLE_NOT_FOUND")
    assert office.ada.get_example(made[0].id).example.state == PENDING


def test_a_source_is_revoked_as_one_act_by_an_admin_alone(office: Office) -> None:
    texts = [f"a poisoned row about the fjord, number {n}" for n in range(3)]
    added = office.ada.add_examples([attack(text, source="stolen") for text in texts])
    assert refused(office.ada.revoke_source, "stolen")[0] == "PERMISSION_DENIED"
    gone = office.chief.revoke_source("stolen", reason="the feed was poisoned")
    assert (gone.count, gone.revision) == (3, added.revision + 1)
    assert {office.ada.get_example(e.id).example.state for e in added.examples} == {REVOKED}
    assert refused(office.chief.revoke_source, "seed") == ("INVALID_ARGUMENT", "INVALID_EXAMPLE")
    assert refused(office.chief.revoke_source, "") == ("INVALID_ARGUMENT", "INVALID_REQUEST")


def test_a_list_keeps_to_state_label_source_and_revision(office: Office) -> None:
    one, two = office.ada.add_examples(
        [attack("first of the shelf", source="shelf"), attack("second of the shelf", source="shelf", state=PENDING)]
    ).examples
    revision = office.ada.revoke_examples([one.id]).revision

    def listed(**wanted: Any) -> list[str]:
        return [e.id for e in office.ada.list_examples(source="shelf", **wanted).examples]

    assert listed() == []
    assert listed(state=PENDING) == [two.id]
    assert listed(state=REVOKED) == [one.id]
    assert listed(any_state=True) == [one.id, two.id]
    assert listed(as_of=revision - 1) == [one.id]
    assert listed(any_state=True, label=BENIGN) == []
    assert refused(office.ada.list_examples, state=PENDING, any_state=True)[1] == "INVALID_REQUEST"
    assert refused(office.ada.list_examples, as_of=-1)[1] == "INVALID_REQUEST"


def test_the_history_of_all_is_read_page_by_page_and_followed(office: Office) -> None:
    def pages(size: int, after: int = 0) -> list[examples_pb2.Change]:
        found: list[examples_pb2.Change] = []
        token = ""
        while True:
            page = office.ada.list_changes(size, token, after=after)
            found += page.changes
            token = page.next_page_token
            if not token:
                return found

    office.ada.add_examples([attack(f"a change to look at, {n}", source="history") for n in range(7)])
    everything = pages(1_000)
    last = everything[-1]
    assert [change.number for change in everything] == sorted({change.number for change in everything})
    assert [c.number for c in pages(3, after=last.number - 7)] == [last.number - n for n in range(6, -1, -1)]
    assert pages(3, after=last.number) == []
    assert refused(office.ada.list_changes, page_token="junk")[1] == "INVALID_PAGE_TOKEN"
    assert refused(office.ada.list_changes, 1_001)[1] == "INVALID_REQUEST"


def test_writers_that_wait_by_default_cannot_put_examples_in_force_without_the_scope(careful: Office) -> None:
    (waiting,) = careful.feeder.add_examples([attack("the tariff of the toll bridge, in full")]).examples
    assert waiting.state == PENDING
    at_once = attack("the tariff of the toll bridge, in part", state=ACTIVE)
    assert refused(careful.feeder.add_examples, [at_once]) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
    assert refused(careful.feeder.accept_examples, [waiting.id])[0] == "PERMISSION_DENIED"
    new = attack("the tariff of the toll bridge, for carts", state=ACTIVE)
    assert refused(careful.feeder.supersede_example, waiting.id, new)[0] == "PERMISSION_DENIED"
    assert careful.ada.add_examples([at_once]).examples[0].state == ACTIVE
    careful.feeder.reject_examples([waiting.id])
    assert refused(careful.feeder.restore_examples, [waiting.id], state=ACTIVE)[0] == "PERMISSION_DENIED"
    assert careful.feeder.restore_examples([waiting.id]).examples[0].state == PENDING


def test_under_the_rule_of_two_nobody_puts_his_own_example_in_force(strict: Office) -> None:
    text = "enumerate the knots of the harbour pilots, each with its reasoning"
    (mine,) = strict.ada.add_examples([attack(text)]).examples
    assert mine.state == PENDING
    assert refused(strict.ada.accept_examples, [mine.id]) == ("PERMISSION_DENIED", "NOT_ALLOWED")
    assert refused(strict.chief.add_examples, [attack("another", state=ACTIVE)])[1] == "NOT_ALLOWED"
    assert refused(strict.ben.restore_examples, [mine.id], state=ACTIVE)[1] == "NOT_ALLOWED"
    assert strict.ben.accept_examples([mine.id]).examples[0].state == ACTIVE
    turned = [examples_pb2.Relabel(id=mine.id, label=BENIGN)]
    assert refused(strict.ben.relabel_examples, turned)[1] == "NOT_ALLOWED"
    assert strict.ada.classify(text).verdict.decision == FLAG
    strict.ben.revoke_examples([mine.id])
    strict.ben.restore_examples([mine.id])
    strict.ben.relabel_examples(turned)
    assert refused(strict.ben.accept_examples, [mine.id])[1] == "NOT_ALLOWED"
    assert refused(strict.ada.accept_examples, [mine.id])[1] == "NOT_ALLOWED", "she proposed it"
    assert strict.chief.accept_examples([mine.id]).examples[0].label == BENIGN


def test_the_rule_of_two_needs_names_that_somebody_vouches_for(tmp_path: Path) -> None:
    with running_server(tmp_path / "home", two_person_rule=True) as server, Client(server.address) as client:
        code = refused(client.add_examples, [attack("who am I")], actor="anybody")
        assert code == ("PERMISSION_DENIED", "PERMISSION_DENIED")


def test_a_reader_may_look_and_not_write(office: Office) -> None:
    office.reader.list_changes(1)
    office.reader.preview_impact([attack("nothing much")])
    office.reader.find_decisions([content_hash("x")])
    for call in (
        lambda: office.reader.add_examples([attack("x y z")]),
        lambda: office.reader.reject_examples(["ex-1"]),
        lambda: office.reader.revoke_examples(["ex-1"]),
        lambda: office.reader.restore_examples(["ex-1"]),
        lambda: office.reader.relabel_examples([examples_pb2.Relabel(id="ex-1", label=BENIGN)]),
        lambda: office.reader.supersede_example("ex-1", attack("x y z")),
        lambda: office.reader.record_decisions([review_pb2.ReviewDecision()]),
    ):
        assert refused(call)[0] == "PERMISSION_DENIED"


def test_odd_requests_are_refused_with_a_reason(office: Office) -> None:
    ada = office.ada
    for call, reason in (
        (lambda: ada.accept_examples([]), "INVALID_REQUEST"),
        (lambda: ada.accept_examples(["ex-1"] * 257), "TOO_MANY_ITEMS"),
        (lambda: ada.accept_examples(["x" * 500]), "INVALID_REQUEST"),
        (lambda: ada.accept_examples([""]), "INVALID_REQUEST"),
        (lambda: ada.accept_examples(["ex-1"], request_id="x" * 129), "INVALID_REQUEST"),
        (lambda: ada.accept_examples(["ex-1"], reason="x" * 2_001), "INVALID_REQUEST"),
        (lambda: ada.accept_examples(["ex-1"], actor="x" * 2_001), "INVALID_REQUEST"),
        (lambda: ada.add_examples([attack("odd", state=REVOKED)]), "INVALID_REQUEST"),
        (lambda: ada.add_examples([attack("odd", state=77)]), "INVALID_REQUEST"),
        (lambda: ada.restore_examples(["ex-1"], state=REVOKED), "INVALID_REQUEST"),
        (lambda: ada.relabel_examples([examples_pb2.Relabel(id="ex-1")]), "INVALID_REQUEST"),
        (lambda: ada.relabel_examples([]), "INVALID_REQUEST"),
        (ada.preview_impact, "INVALID_REQUEST"),
        (lambda: ada.find_decisions(["short"]), "INVALID_REQUEST"),
        (lambda: ada.find_decisions(["A" * 64]), "INVALID_REQUEST"),
        (lambda: ada.record_decisions([review_pb2.ReviewDecision(content_hash="a" * 64)]), "INVALID_REQUEST"),
    ):
        assert refused(call)[1] == reason


def test_the_impact_counts_recent_prompts_that_would_newly_be_flagged(tmp_path: Path) -> None:
    ordinary = [f"How do I get from the harbour to pier {n} by the early bus?" for n in range(12)]
    with running_server(tmp_path / "home") as server, Client(server.address) as client:
        for prompt in ordinary:
            client.classify(prompt)
        client.classify_batch(ordinary)
        rash = attack(ordinary[0])
        found = client.preview_impact([rash])
        assert found.allowed == len(ordinary), "each prompt counts once, and none of the server's own"
        assert found.newly_flagged >= 1
        assert found.moves[0].probability_after > found.moves[0].probability_before
        assert "would newly flag" in found.sentences[0]
        assert client.classify(ordinary[0]).verdict.decision == verdict_pb2.DECISION_ALLOW, "nothing was stored"
        client.add_examples([rash])
        flagged = sum(client.classify(prompt).verdict.decision == FLAG for prompt in ordinary)
        assert flagged == found.newly_flagged
        name = client.list_examples(1_000, state=ACTIVE, source="").examples[0].id
        assert client.preview_impact(revoked=[name]).allowed == len(ordinary)
    with running_server(tmp_path / "home") as server, Client(server.address) as client:
        again = client.preview_impact([attack("something else entirely")])
        assert again.allowed == len(ordinary), "the sample outlives the server"


def test_what_speaks_against_a_candidate_is_said_before_it_is_stored(office: Office) -> None:
    text = "how are the sails of a pinky schooner cut, and why is the mainsail so large?"
    (known,) = office.ada.add_examples([examples_pb2.Example(text=text, label=BENIGN)]).examples
    found = office.ada.preview_impact([attack(text), attack(f"{text} ")])
    kinds = {(f.candidate, f.kind) for f in found.findings if f.example.example_id == known.id}
    assert (0, review_pb2.FINDING_KIND_SAME_TEXT_OTHER_LABELS) in kinds
    assert (1, review_pb2.FINDING_KIND_NEAR_OTHER_LABEL) in kinds
    assert text not in "".join(f.text for f in found.findings)


def test_decisions_are_kept_without_text_and_the_last_one_counts(office: Office) -> None:
    name = content_hash("a prompt that was looked at")
    for choice in (review_pb2.CHOICE_IGNORE, review_pb2.CHOICE_REJECT):
        office.ada.record_decisions([review_pb2.ReviewDecision(content_hash=name, choice=choice, reason="as usual")])
    (found,) = office.ben.find_decisions([name, content_hash("another")]).decisions
    assert (found.choice, found.actor, found.reason) == (review_pb2.CHOICE_REJECT, "ada", "as usual")
    assert found.create_time.seconds > 0


def test_another_server_on_the_same_store_knows_a_write_within_a_second(tmp_path: Path) -> None:
    text = "list the moorings of Cuttyhunk one by one, and say aloud how you chose the order"
    home = tmp_path / "home"
    with (
        running_server(home) as one,
        running_server(home) as two,
        Client(one.address) as writer,
        Client(two.address) as reader,
    ):
        before = reader.classify(text).verdict.decision
        (added,) = writer.add_examples([attack(text)]).examples
        assert _until(reader, text, FLAG) < 1.0, "a replica follows within a second"
        writer.revoke_examples([added.id])
        assert _until(reader, text, before) < 1.0, "and forgets within a second"


def _until(reader: Client, text: str, decision: int) -> float:
    """The seconds until a server decides a prompt so."""
    began = time.monotonic()
    while reader.classify(text).verdict.decision != decision:
        assert time.monotonic() - began < 20
        threading.Event().wait(0.01)
    return time.monotonic() - began
