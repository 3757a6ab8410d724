"""A verdict as another process of the server sent it: read like a Verdict, and passed on without being made anew."""

from collections.abc import Sequence

from stillwatch.v1 import verdict_pb2

from classifier.verdict import Decision

_DECISIONS = {
    verdict_pb2.DECISION_ALLOW: Decision.ALLOW,
    verdict_pb2.DECISION_REVIEW: Decision.REVIEW,
    verdict_pb2.DECISION_FLAG: Decision.FLAG,
    verdict_pb2.DECISION_ABSTAIN: Decision.ABSTAIN,
}


class Received:
    """What metrics, cache, traces and the access log read of a verdict on the wire.

    Attributes:
        message: The wire's own message.
        decision: The decision.
    """

    __slots__ = ("decision", "message")

    def __init__(self, data: bytes) -> None:
        """Read a verdict.

        Args:
            data: A serialised verdict_pb2.Verdict, from a process that this one started.
        """
        # A message of its own for each verdict: one of a larger message would keep all of that in memory.
        self.message = verdict_pb2.Verdict.FromString(data)
        self.decision = _DECISIONS[self.message.decision]

    @property
    def extraction_probability(self) -> float:
        """In [0, 1], calibrated; 0 where the prompt was not judged."""
        return self.message.extraction_probability

    @property
    def extraction_logit(self) -> float:
        """The raw score behind it."""
        return self.message.extraction_logit

    @property
    def techniques(self) -> Sequence[verdict_pb2.LabelScore]:
        """Highest first."""
        return self.message.techniques

    @property
    def capabilities(self) -> Sequence[verdict_pb2.LabelScore]:
        """In the bundle's order."""
        return self.message.capabilities

    @property
    def nearest_examples(self) -> Sequence[verdict_pb2.Neighbour]:
        """Highest cosine first."""
        return self.message.nearest_examples

    @property
    def reasons(self) -> Sequence[verdict_pb2.Reason]:
        """Why the decision is what it is."""
        return self.message.reasons

    @property
    def inspected(self) -> verdict_pb2.Inspection:
        """How much was read."""
        return self.message.inspected

    @property
    def abstention(self) -> verdict_pb2.Abstention | None:
        """Why the prompt was not judged; None where it was."""
        return self.message.abstention if self.message.HasField("abstention") else None
