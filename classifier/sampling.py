"""The sample of recent traffic of one scorer: where it is kept, and when it is taken."""

from pathlib import Path

import structlog

from classifier.config import Settings
from classifier.desk.kept import RESERVOIR_FILE, restore, save
from classifier.desk.reservoir import Reservoir
from classifier.desk.sample import Group
from classifier.desk.secret import desk_key
from classifier.errors import InvalidSetting
from classifier.scorer import Model, Observed

_log = structlog.get_logger("stillwatch.sampling")


class Sampling:
    """A reservoir with its file. It takes what is scored from the moment at which it is switched on.

    Attributes:
        reservoir: The sample.
        on: Whether what is scored is sampled: not while canaries and warming prompts are.
    """

    def __init__(self, reservoir: Reservoir, path: Path) -> None:
        """Begin switched off.

        Args:
            reservoir: The sample.
            path: Its file.
        """
        self.reservoir = reservoir
        self.on = False
        self._path = path
        self._saved = reservoir.changes

    def observe(self, batch: Observed) -> None:
        """Take a scored batch; an observer of the scorer.

        Args:
            batch: What was scored.
        """
        if self.on:
            self.reservoir.observe(batch)

    def take_over(self, other: "Sampling | None") -> None:
        """Go on with what the scorer before this one sampled, if both are of the same bundle, and switch on.

        Args:
            other: Its sampling, which takes nothing more.
        """
        if other is not None:
            other.on = False
            if other.reservoir.scope == self.reservoir.scope:
                self.reservoir.restore({group: other.reservoir.sample(group) for group in Group})
        self.on = True

    def save(self) -> None:
        """Write the file, if anything was sampled since the last time; one that cannot be written is logged."""
        changes = self.reservoir.changes
        if changes == self._saved:
            return
        try:
            save(self.reservoir, self._path)
        except OSError as error:
            _log.warning("sample_not_saved", file=self._path.name, reason=error.strerror)
        else:
            self._saved = changes


def open_sampling(model: Model, settings: Settings, *, filled: bool = True) -> Sampling | None:
    """The sample of recent traffic under a bundle.

    Args:
        model: What scores.
        settings: Where it is kept, and how large it is.
        filled: Whether to begin with what its file holds.

    Returns:
        The sample; None where the settings ask for none, or no key can be kept, which is logged.
    """
    if not settings.reservoir_prompts:
        return None
    home = settings.home.expanduser()
    try:
        key = desk_key(home)
    except InvalidSetting as error:
        _log.warning("no_sample_of_traffic", reason=str(error))
        return None
    reservoir = Reservoir(model, key, prompts=settings.reservoir_prompts)
    if filled:
        restore(reservoir, home / RESERVOIR_FILE)
    return Sampling(reservoir, home / RESERVOIR_FILE)
