"""What becomes of a reviewer's decisions, on a server or on the local store."""

from collections.abc import Callable, Mapping, Sequence

from stillwatch.v1 import examples_pb2, review_pb2

from classifier.desk.choosing import Why
from classifier.desk.queue import Item
from classifier.desk.review import Judgement, Labelling, Review
from classifier.local_examples import Verbs
from classifier.transfer.messages import example_of_message, label_number, message_of
from classifier.verdict import Decision, Verdict
from index.change import Act, Choice
from index.change import Decision as Decided
from index.example import Example, State

_CHOICES = {
    Choice.ACCEPT: review_pb2.CHOICE_ACCEPT,
    Choice.REJECT: review_pb2.CHOICE_REJECT,
    Choice.IGNORE: review_pb2.CHOICE_IGNORE,
}


class ClientWriter:
    """Keeps what comes of decisions by the verbs of a client."""

    def __init__(self, client: Verbs, state: State | None) -> None:
        """Write through a client.

        Args:
            client: Of a server or of the local store.
            state: In which state accepted prompts are stored; None leaves it to the settings there.
        """
        self._client = client
        self._state = state

    def add(self, examples: Sequence[Example], act: Act) -> list[Example]:
        """Store all of the examples or none."""
        messages = [message_of(example, self._state) for example in examples]
        answer = self._client.add_examples(messages, act.request_id or "", reason=act.reason, actor=act.actor)
        return [example_of_message(example) for example in answer.examples]

    def decide(self, decisions: Sequence[Decided]) -> None:
        """Keep reviewers' decisions."""
        self._client.record_decisions(
            [
                review_pb2.ReviewDecision(
                    content_hash=one.content_hash,
                    choice=_CHOICES[one.choice],
                    reason=one.reason,
                    actor=one.actor,
                    example_id=one.example_id,
                )
                for one in decisions
            ]
        )


def accept_pending(client: Verbs, ids: Mapping[str, str], actor: str) -> Callable[[Judgement], None]:
    """Make decisions about pending examples durable: accepted ones become active, ignored ones stay pending.

    Args:
        client: Of a server or of the local store.
        ids: The examples' ids by their content hashes.
        actor: Who decides.

    Returns:
        Commits a decision; what fails half-way is finished by trying again.
    """

    def commit(judgement: Judgement) -> None:
        name, given = ids[judgement.item.content_hash], judgement.labelling
        if judgement.choice is Choice.REJECT:
            client.reject_examples([name], actor=actor, request_id=judgement.request_id)
        if given is None:
            return
        if given != Review.suggested(judgement.item):
            relabel = examples_pb2.Relabel(
                id=name,
                label=label_number(given.label),
                technique=given.technique or "",
                capabilities=given.capabilities,
            )
            client.relabel_examples([relabel], actor=actor, request_id=f"{judgement.request_id}-labels")
        client.accept_examples([name], actor=actor, request_id=judgement.request_id)

    return commit


def pending_item(message: examples_pb2.Example, verdict: Verdict | None) -> Item:
    """A pending example as an item: its labels are those that its author gave it.

    Args:
        message: The example.
        verdict: What the scorer says of it now; None when it cannot be scored.

    Returns:
        The item.
    """
    example = example_of_message(message)
    who = f"added by {example.author}" if example.author else "added by somebody"
    return Item(
        prompt=example.text,
        content_hash=example.content_hash,
        why=Why.RANDOM,
        reason=f"{who}, pending{f': {example.note}' if example.note else ''}",
        decision=verdict.decision if verdict else Decision.ABSTAIN,
        probability=verdict.extraction_probability if verdict else 0.0,
        label=example.label,
        technique=example.technique,
        capabilities=example.capabilities,
        nearest=verdict.nearest_examples if verdict else (),
    )


def weigh(client: Verbs, item: Item, labelling: Labelling) -> str:
    """Say what it would change if a prompt became an active example.

    Args:
        client: Of a server or of the local store.
        item: The prompt.
        labelling: Its labels.

    Returns:
        One sentence.

    Raises:
        StillwatchError: When it cannot be worked out.
    """
    example = Example(item.prompt, labelling.label, labelling.technique, labelling.capabilities)
    return client.preview_impact([message_of(example, None)]).sentences[0]
