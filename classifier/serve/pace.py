"""How fast batches are scored: a running rate, from which waiting times are foretold."""

_WEIGHT = 0.2
_TEACHES_FROM = 512
_MOST_CHANGE = 2.0
_FIRST = 4
"""So many batches that teach are taken by the fastest: the first ones are slow because everything is cold."""


class Pace:
    """Window tokens that are scored in a second, learned batch by batch.

    A small batch is mostly overhead and says little of a full one, so it only ever raises the rate. One batch moves the
    rate by a fifth at most, so that a process that was suspended does not refuse everything when it goes on.
    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self._rate = 0.0
        self._taught = 0

    @property
    def rate(self) -> float:
        """Window tokens a second; 0.0 before the first batch."""
        return self._rate

    def learn(self, tokens: int, seconds: float) -> None:
        """Take note of a scored batch.

        Args:
            tokens: The batch's window tokens, by estimate.
            seconds: From its beginning until its answers were there.
        """
        seen = tokens / max(seconds, 1e-6)
        if self._taught < _FIRST:
            self._taught += tokens >= _TEACHES_FROM
            self._rate = max(seen, self._rate)
        elif tokens >= _TEACHES_FROM or seen > self._rate:
            seen = min(max(seen, self._rate / _MOST_CHANGE), self._rate * _MOST_CHANGE)
            self._rate += _WEIGHT * (seen - self._rate)

    def hope(self) -> None:
        """Raise the rate a little: called when it alone made an idle server refuse work, so that a wrong one mends."""
        self._rate *= 1.1

    def seconds(self, tokens: float) -> float:
        """How long so many tokens will take.

        Args:
            tokens: Window tokens.

        Returns:
            Seconds; 0.0 before the first batch.
        """
        return tokens / self._rate if self._rate else 0.0

    def tokens(self, seconds: float) -> float:
        """How many tokens fit into a time.

        Args:
            seconds: A time.

        Returns:
            Window tokens; infinite before the first batch.
        """
        return seconds * self._rate if self._rate else float("inf")
