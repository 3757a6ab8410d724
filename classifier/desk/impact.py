"""What examples would change in recent traffic, before they count."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from classifier.desk.reservoir import Reservoir, scope_of
from classifier.desk.sample import Floats, Group, Sample
from classifier.desk.standing import Changes, Standing, change, stand
from classifier.errors import InvalidRequest
from classifier.interval import wilson
from classifier.scorer import Model
from classifier.verdict import Decision
from index.example import Example, Label
from index.live import Snapshot

MOST_CHANGES = 1_000
MOVERS = 10


@dataclass(frozen=True, slots=True)
class Move:
    """A prompt whose score would move.

    Attributes:
        mark: What stands for its text, in hexadecimal: nobody can read a prompt from it.
        group: What became of it when it was scored.
        before: Its extraction probability now, in [0, 1].
        after: Its extraction probability with the change.
        decision_before: Its decision now.
        decision_after: Its decision with the change.
    """

    mark: str
    group: Group
    before: float
    after: float
    decision_before: Decision
    decision_after: Decision


@dataclass(frozen=True, slots=True)
class Impact:
    """What a change of the examples would do to recent traffic.

    Attributes:
        allowed: How many allowed prompts were looked at.
        allowed_seen: From how many scored ones they were sampled.
        caught: How many flagged or reviewed prompts were looked at.
        caught_seen: From how many scored ones they were sampled.
        newly_flagged: Of the allowed ones, how many would be flagged that are not now.
        newly_reviewed: Of the allowed ones, how many would be reviewed that are neither reviewed nor flagged now.
        no_longer_flagged: Of the caught ones, how many would not be flagged any more.
        newly_allowed: Of the caught ones, how many would be allowed that are not now.
        movers: The prompts of both kinds whose scores would move most, furthest first.
    """

    allowed: int
    allowed_seen: int
    caught: int
    caught_seen: int
    newly_flagged: int
    newly_reviewed: int
    no_longer_flagged: int
    newly_allowed: int
    movers: tuple[Move, ...]

    @property
    def flagged_interval(self) -> tuple[float, float]:
        """The 95 % interval of the share of allowed traffic that would newly be flagged."""
        return wilson(self.newly_flagged, self.allowed)

    @property
    def sentences(self) -> tuple[str, ...]:
        """The same in words, for people."""
        if not self.allowed and not self.caught:
            return ("no recent traffic is known: serve or score prompts first, or take the impact for unknown",)
        found = []
        if self.allowed:
            most = 100 * self.flagged_interval[1]
            found.append(
                f"would newly flag {self.newly_flagged:,} of the last {self.allowed:,} benign prompts "
                f"(at most {most:.2g} % of such traffic, with 95 % confidence), and newly review {self.newly_reviewed:,}"
            )
        if self.caught:
            found.append(
                f"would no longer flag {self.no_longer_flagged:,} of the last {self.caught:,} prompts that were flagged "
                f"or reviewed, and newly allow {self.newly_allowed:,}"
            )
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Baseline:
    """The reservoir's prompts as they stand now; worked out once for several questions about one state.

    Attributes:
        samples: The prompts of each group.
        standings: How they stand.
    """

    samples: Mapping[Group, Sample]
    standings: Mapping[Group, Standing]


def baseline(reservoir: Reservoir, model: Model, snapshot: Snapshot) -> Baseline:
    """Score the reservoir's prompts among the examples as they are.

    Args:
        reservoir: Recent traffic.
        model: The bundle under which it was sampled, with the thresholds in force.
        snapshot: The examples.

    Returns:
        How the prompts stand.

    Raises:
        InvalidRequest: When the reservoir was filled under another bundle.
    """
    if reservoir.scope != scope_of(model):
        raise InvalidRequest("the recent prompts were sampled under another bundle: ask again once this one has served")
    samples = {group: reservoir.sample(group) for group in Group}
    return Baseline(samples, {g: stand(sample, model, snapshot, reservoir.key) for g, sample in samples.items()})


def impact(
    candidates: Sequence[Example],
    vectors: Floats,
    reservoir: Reservoir,
    model: Model,
    snapshot: Snapshot,
    *,
    revoked: Collection[str] = (),
    known: Baseline | None = None,
) -> Impact:
    """What recent traffic would be decided like if examples counted that do not, or no longer counted.

    A candidate whose text is an active example's takes its place, as a relabelled one does.

    Args:
        candidates: Examples that would become active.
        vectors: (n, d) float32 unit rows, theirs.
        reservoir: Recent traffic.
        model: The bundle under which it was sampled, with the thresholds in force.
        snapshot: The examples as they are.
        revoked: Ids of active examples that would be revoked.
        known: What `baseline` gave for the same snapshot; None works it out.

    Returns:
        The impact.

    Raises:
        InvalidRequest: When there are over MOST_CHANGES changes, or the reservoir was filled under another bundle.
    """
    if len(candidates) + len(revoked) > MOST_CHANGES:
        raise InvalidRequest(f"the impact of at most {MOST_CHANGES:,} examples is worked out at once: ask for fewer")
    if len(vectors) != len(candidates):
        raise ValueError(f"{len(candidates)} candidates, but {len(vectors)} vectors")
    now = known or baseline(reservoir, model, snapshot)
    changes = _changes(candidates, vectors, snapshot, revoked)
    after = {
        group: change(standing, now.samples[group], model, changes, reservoir.key)
        for group, standing in now.standings.items()
    }
    return _impact(now, after)


def _changes(candidates: Sequence[Example], vectors: Floats, snapshot: Snapshot, revoked: Collection[str]) -> Changes:
    last = {example.id: (example, vector) for example, vector in zip(candidates, vectors, strict=True)}
    added = {label: [pair for pair in last.values() if pair[0].label == label] for label in Label}
    replaced = {name for name in last if any(name in snapshot.side(label).ids for label in Label)}
    return Changes(added, frozenset(revoked) | replaced)


def _impact(now: Baseline, after: Mapping[Group, Standing]) -> Impact:
    moves = {group: _moves(group, now.samples[group], now.standings[group], after[group]) for group in Group}
    allowed, caught = moves[Group.ALLOWED], moves[Group.CAUGHT]
    stopped = (Decision.REVIEW, Decision.FLAG)
    moved = sorted((move for own in moves.values() for move in own if move.before != move.after), key=_distance)
    return Impact(
        allowed=len(allowed),
        allowed_seen=now.samples[Group.ALLOWED].seen,
        caught=len(caught),
        caught_seen=now.samples[Group.CAUGHT].seen,
        newly_flagged=sum(m.decision_after == Decision.FLAG != m.decision_before for m in allowed),
        newly_reviewed=sum(m.decision_after == Decision.REVIEW and m.decision_before not in stopped for m in allowed),
        no_longer_flagged=sum(m.decision_before == Decision.FLAG != m.decision_after for m in caught),
        newly_allowed=sum(m.decision_after == Decision.ALLOW and m.decision_before in stopped for m in caught),
        movers=tuple(moved[:MOVERS]),
    )


def _distance(move: Move) -> tuple[float, str]:
    return -abs(move.after - move.before), move.mark


def _moves(group: Group, sample: Sample, before: Standing, after: Standing) -> list[Move]:
    return [
        Move(
            entry.mark.hex(),
            group,
            before.probabilities[number],
            after.probabilities[number],
            before.decisions[number],
            after.decisions[number],
        )
        for number, entry in enumerate(sample.entries)
    ]
