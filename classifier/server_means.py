"""What a review queue is made with when a server scores and keeps the examples."""

from collections.abc import Callable, Collection, Sequence
from functools import lru_cache

from stillwatch.v1 import verdict_pb2

from classifier.client import Client
from classifier.desk.queue import Means
from classifier.errors import ServiceFailed
from classifier.policy import Thresholds
from classifier.prompts import NamedPrompt
from classifier.remote import score_remotely
from classifier.transfer.messages import example_of_message
from classifier.verdict import Abstention, Decision, Extent, Inspection, LabelScore, Reason, Verdict
from index.errors import InvalidExample
from index.example import Example, example_id
from index.live import Match

_HASHES = 500
_KNOWN = 5_000
_DECISIONS = {verdict_pb2.Decision.Value(f"DECISION_{decision.name}"): decision for decision in Decision}
_EXTENTS = {verdict_pb2.Extent.Value(f"EXTENT_{extent.name}"): extent for extent in Extent}
Find = Callable[[str], Example | None]


def server_means(client: Client, server: str) -> Means:
    """Make queues with a server's verdicts; it gives no embeddings, so templates alone tell prompts apart.

    Args:
        client: Asks the server for its examples.
        server: Host and port.

    Returns:
        The means.
    """

    @lru_cache(_KNOWN)
    def find(name: str) -> Example | None:
        try:
            return example_of_message(client.get_example(name).example)
        except ServiceFailed as error:
            if error.reason != "EXAMPLE_NOT_FOUND":  # it went away between two calls
                raise
            return None

    def judge(prompts: Sequence[str]) -> list[Verdict | None]:
        results = score_remotely([NamedPrompt(str(n), prompt) for n, prompt in enumerate(prompts)], server)
        return [verdict_of(r.verdict, find) if r.WhichOneof("outcome") == "verdict" else None for r in results]

    def settled(hashes: Collection[str]) -> set[str]:
        ordered = sorted(hashes)
        parts = [ordered[start : start + _HASHES] for start in range(0, len(ordered), _HASHES)]
        decided = {one.content_hash for part in parts for one in client.find_decisions(part).decisions}
        return decided | {name for name in ordered if name not in decided and find(example_id(name)) is not None}

    return Means(judge, settled)


def known_by(server: str) -> tuple[Thresholds, tuple[str, ...]]:
    """The thresholds in force on a server, and its techniques.

    Args:
        server: Host and port.

    Returns:
        Thresholds, and techniques in alphabetical order.

    Raises:
        ServiceFailed: When it does not answer.
    """
    with Client(server) as client:
        answer = client.classify("How do I sort a list in Python?")
    origin = answer.provenance
    return Thresholds(origin.review_threshold, origin.flag_threshold), tuple(
        sorted(technique.name for technique in answer.verdict.techniques)
    )


def verdict_of(message: verdict_pb2.Verdict, find: Find) -> Verdict:
    """A wire verdict as a domain verdict.

    Args:
        message: The wire message.
        find: Finds an example by its id; None when it is gone.

    Returns:
        The verdict; without examples that are gone.

    Raises:
        InvalidExample: When the server sends an example that is none.
    """
    seen = message.inspected
    near = [(find(one.example_id), one.cosine) for one in message.nearest_examples]
    abstention = Abstention(message.abstention.code, message.abstention.text)
    if message.decision not in _DECISIONS or seen.extent not in _EXTENTS:
        raise InvalidExample("the server answers with a decision that this version does not know: update it")
    return Verdict(
        decision=_DECISIONS[message.decision],
        extraction_probability=message.extraction_probability,
        extraction_logit=message.extraction_logit,
        techniques=tuple(LabelScore(one.name, one.probability) for one in message.techniques),
        capabilities=tuple(LabelScore(one.name, one.probability) for one in message.capabilities),
        nearest_examples=tuple(Match(example, cosine) for example, cosine in near if example is not None),
        reasons=tuple(Reason(one.code, one.text) for one in message.reasons),
        inspected=Inspection(
            extent=_EXTENTS[seen.extent],
            tokens_inspected=seen.tokens_inspected,
            tokens_total=seen.tokens_total,
            windows=seen.windows,
            strongest_window=(seen.strongest_window.start_char, seen.strongest_window.end_char),
        ),
        abstention=abstention if message.HasField("abstention") else None,
    )
