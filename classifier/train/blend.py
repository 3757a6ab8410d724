"""The head as it is served: a linear one for every label, and small networks that correct its extraction logit."""

from dataclasses import dataclass

from scipy import sparse

from classifier.train.linear import Examples, Floats, Linear, Scales, fit_linear, scaling_of
from classifier.train.network import Network, fit_network

SHARE = 0.5
"""What the networks' logit counts beside the linear one's (decision 0009)."""


@dataclass(frozen=True, slots=True)
class Blend:
    """Features and words to logits.

    Attributes:
        linear: Every label.
        network: Extraction.
    """

    linear: Linear
    network: Network

    def logits(self, features: Floats, bags: sparse.csr_matrix) -> Floats:
        """(n, labels) float32 logits of (n, features) and (n, buckets)."""
        found = self.linear.logits(features, bags)
        found[:, 0] += SHARE * self.network.logits(features)
        return found


def fit_blend(examples: Examples, scales: Scales, dimensions: int, seed: int) -> Blend:
    """Fit both on the same windows.

    Args:
        examples: Windows.
        scales: How strongly each kind of feature may speak.
        dimensions: How many of the features are the embedding's.
        seed: Of the networks.

    Returns:
        The head.
    """
    scaling = scaling_of(examples, scales, dimensions)
    linear, telling = fit_linear(examples, scales, scaling)
    network = fit_network(
        telling.features, telling.extraction, telling.extraction_weights, scaling.centre, scaling.spread, seed
    )
    return Blend(linear, network)
