"""Small networks over embedding and neighbour evidence, which bend the linear head's border a little.

One network on so few rows depends on its first weights; the mean of several does not. All of them together are one
hidden layer.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
_MEMBERS = 6
_HIDDEN = 16
_DECAY = 0.3
_EPOCHS = 8
_BATCH = 256


@dataclass(frozen=True, slots=True)
class Network:
    """Features to one logit: the mean of several networks of one hidden layer.

    Attributes:
        hidden: (features, units) float32.
        offsets: (units,) float32.
        output: (units,) float32.
        bias: Added at the end.
    """

    hidden: Floats
    offsets: Floats
    output: Floats
    bias: float

    def logits(self, features: Floats) -> Floats:
        """(n,) float32 logits of (n, features)."""
        units = np.maximum(features @ self.hidden + self.offsets, 0)
        return np.asarray(units @ self.output + np.float32(self.bias), np.float32)


def fit_network(
    features: Floats, target: Bools, weights: NDArray[np.float64], centre: Floats, spread: Floats, seed: int
) -> Network:
    """Fit several networks for one label and join them.

    Args:
        features: (n, d).
        target: (n,).
        weights: (n,) what each row counts; the two labels are made to count the same.
        centre: (d,) taken from the features.
        spread: (d,) by which they are divided then; both are folded into the weights.
        seed: Of the first weights and the order of rows.

    Returns:
        The networks as one.
    """
    scaled = (features - centre) / spread
    balanced = weights * np.where(target, 0.5 / weights[target].sum(), 0.5 / weights[~target].sum()) * len(target)
    members = []
    for number in range(_MEMBERS):
        member = MLPClassifier(
            (_HIDDEN,), alpha=_DECAY, max_iter=_EPOCHS, batch_size=_BATCH, random_state=seed * _MEMBERS + number
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # it stops early on purpose
            members.append(member.fit(scaled, target, sample_weight=balanced))
    hidden = np.hstack([member.coefs_[0] for member in members]) / spread[:, None]
    offsets = np.concatenate([member.intercepts_[0] for member in members]) - centre @ hidden
    output = np.concatenate([member.coefs_[1][:, 0] for member in members]) / _MEMBERS
    bias = float(np.mean([member.intercepts_[1][0] for member in members]))
    return Network(hidden.astype(np.float32), offsets.astype(np.float32), output.astype(np.float32), bias)
