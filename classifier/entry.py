"""How an example comes into force: at once, or only when it was accepted, and by whom."""

from dataclasses import dataclass

from classifier.errors import PermissionDenied
from index.errors import NotAllowed
from index.example import Example, State


@dataclass(frozen=True, slots=True)
class Rules:
    """The operator's rules for writers of examples.

    Attributes:
        pending_by_default: Whether an added example waits for an acceptance when its writer names no state.
        two_person: Whether an example becomes active only when another than its author accepts it.
    """

    pending_by_default: bool = False
    two_person: bool = False

    @property
    def waits(self) -> bool:
        """Whether an example waits when its writer names no state."""
        return self.pending_by_default or self.two_person

    def entered(self, wanted: State | None, *, may_accept: bool) -> State:
        """The state in which an example is stored or restored.

        Args:
            wanted: Pending or active; None where the writer names none.
            may_accept: Whether the writer may accept examples.

        Returns:
            Pending or active.

        Raises:
            NotAllowed: When active is wanted, and another must accept it.
            PermissionDenied: When active is wanted, and the writer may not accept.
        """
        if wanted is State.ACTIVE and self.two_person:
            raise NotAllowed("two_person_rule is set: leave the example pending, and let somebody else accept it")
        if wanted is State.ACTIVE and self.waits and not may_accept:
            raise PermissionDenied("pending_by_default is set: leave the example pending, or use examples:accept")
        if wanted is not None:
            return wanted
        return State.PENDING if self.waits else State.ACTIVE

    def check_relabel(self, example: Example) -> None:
        """Keep one person from giving an example that is in force other labels, where two are asked for.

        Args:
            example: As it is.

        Raises:
            NotAllowed: When it is active, and two persons are asked for.
        """
        if self.two_person and example.state is State.ACTIVE:
            raise NotAllowed(
                f"two_person_rule is set, and {example.id} is active: revoke it, relabel it, restore it as pending, "
                "and let somebody else accept it"
            )
