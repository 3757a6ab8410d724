"""What recall is lost when the same prompts are changed, at a threshold that does not move."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from classifier.train.metrics import Interval, Truth, cluster_means


@dataclass(frozen=True, slots=True)
class Loss:
    """The recall of the same prompts before and after a change.

    Attributes:
        alone: Recall of the prompts as they are, in [0, 1].
        changed: Recall of the changed prompts.
        lost: alone - changed with its interval, paired and by template; below 0 where the change gives them away.
    """

    alone: float
    changed: float
    lost: Interval


def loss(alone: Truth, changed: Truth, clusters: Sequence[Hashable], draws: int) -> Loss:
    """Compare prompts with themselves.

    Args:
        alone: (n,) which prompts are caught as they are.
        changed: (n,) which are caught once they are changed, in the same order.
        clusters: For each prompt its cluster, drawn as a whole.
        draws: Bootstrap resamples.

    Returns:
        The loss; nan where there are no prompts.
    """
    difference = alone.astype(np.float64) - changed.astype(np.float64)
    lost = cluster_means(difference[:, None], clusters, draws=draws)[0]
    if not len(alone):
        return Loss(float("nan"), float("nan"), lost)
    return Loss(float(alone.mean()), float(changed.mean()), lost)
