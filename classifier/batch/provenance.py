"""Whether two runs can be compared, and what of their making can explain that they differ."""

from collections.abc import Mapping

from classifier.batch.compare import Run
from classifier.batch.names import shown
from classifier.errors import RunRefused

_NAMED = 3
_DECISIVE = ("bundle", "examples", "review_threshold", "flag_threshold", "max_prompt_chars")


def check_comparable(before: Run, after: Run) -> None:
    """Refuse runs whose rows of one place are not the same request.

    Args:
        before: The first run.
        after: The second one.

    Raises:
        RunRefused: When they read different inputs, or read them differently.
    """
    stamps = [{one.name: one.stamp for one in run.manifest.inputs} for run in (before, after)]
    first, second = (set(own) for own in stamps)
    for names, folder, other in ((first - second, before, after), (second - first, after, before)):
        if names:
            listed = ", ".join(shown(name) for name in sorted(names)[:_NAMED])
            more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
            raise RunRefused(
                f"the runs have different inputs: {folder.folder} read {listed}{more}, which {other.folder} did not: "
                "compare runs over the same inputs, named in the same way"
            )
    changed = sorted(name for name in first if stamps[0][name] != stamps[1][name])
    if changed:
        name = changed[0]
        raise RunRefused(
            f"the runs have different inputs: {shown(name)} was {stamps[0][name]} (size and version) for {before.folder} "
            f"and {stamps[1][name]} for {after.folder}: run the older one again on the file as it is now"
        )
    for setting in ("format", "shape"):
        values = [run.manifest.identity.get(setting) for run in (before, after)]
        if values[0] != values[1]:
            raise RunRefused(
                f"the runs read their inputs differently: {setting} was {shown(str(values[0]))} for {before.folder} and "
                f"{shown(str(values[1]))} for {after.folder}: run one of them again with the other's"
            )


def explain(before: Run, after: Run, changed: int) -> tuple[str, ...]:
    """Say what can explain changes, and what cannot.

    Args:
        before: The first run.
        after: The second one.
        changed: How many decisions changed.

    Returns:
        Sentences for people.
    """
    first, second = before.manifest.identity, after.manifest.identity
    states = (("A", before.manifest.state), ("B", after.manifest.state))
    notes = [f"run {name} is {state}: not all of its input is in it" for name, state in states if state != "done"]
    if _differ(first, second, "sample", "seed", "where"):
        notes.append("the runs chose rows differently (sample, seed or where): only what both scored is compared")
    if _differ(first, second, "template"):
        notes.append("template fingerprints are of two versions: those of run A are given")
    if not _differ(first, second, "bundle"):
        notes.append(f"both runs were scored with the same bundle, {first.get('bundle')}")
    if not _differ(first, second, "examples"):
        revisions = [identity.get("index_revision") for identity in (first, second)]
        other = (
            "" if revisions[0] == revisions[1] else f", although the revisions are {revisions[0]} and {revisions[1]}"
        )
        notes.append(f"both runs were scored with the same examples{other}")
    if _differ(first, second, "review_threshold", "flag_threshold"):
        pairs = [[identity.get(f"{name}_threshold") for identity in (first, second)] for name in ("review", "flag")]
        (review_a, review_b), (flag_a, flag_b) = pairs
        notes.append(f"the thresholds differ: review {review_a} and {review_b}, flag {flag_a} and {flag_b}")
    if not _differ(first, second, *_DECISIVE):
        broken = "; those that changed were scored by another machine or other versions of libraries" if changed else ""
        notes.append(f"nothing that decides a score differs, so no decision should change{broken}")
    return tuple(notes)


def _differ(first: Mapping[str, object], second: Mapping[str, object], *names: str) -> bool:
    return any(first.get(name) != second.get(name) for name in names)
