"""Warming up: nothing is left to be loaded by the first callers."""

from dataclasses import replace

from classifier import disguise, identifier, text
from classifier.runtime import Runtime
from classifier.scorer import Scorer
from classifier.serve.warm import WARM_UP


def test_the_warm_up_loads_all_that_is_loaded_late(runtime: Runtime) -> None:
    late = (disguise._lookalikes, identifier.packaged, text._mark_runs)
    for part in late:
        part.cache_clear()
    # An older bundle brings no identifier of languages.
    scorer = Scorer(replace(runtime.scorer.model, identify=None), lambda: runtime.examples.snapshot)
    verdicts = scorer.score(WARM_UP).verdicts
    assert [part.cache_info().currsize for part in late] == [1, 1, 1]
    assert max(verdict.inspected.windows for verdict in verdicts) > 2
