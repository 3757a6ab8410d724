"""Fuzzes request decoding, conversation extraction, canonical text with undisguising, and the bundle opener.

Prints a Markdown table, and fails when an input crashes, hangs, takes over its time limit or raises what is no error of
the project's. Inputs are random with a seed: an input that is named is repeated by  --only TARGET --first NUMBER --inputs 1.
"""

import argparse
import sys

from fuzzing import Target, fuzz
from mutations import make_bundle, make_conversation, make_request, make_text
from openings import open_mutated, prepare_bundle, prepare_ranks, read_body, read_request, read_text

TARGETS = (
    Target("request", int, make_request, read_request, 2.0),
    Target("conversation", int, make_conversation, read_body, 2.0),
    Target("text", prepare_ranks, make_text, read_text, 4.0),
    Target("bundle", prepare_bundle, make_bundle, open_mutated, 4.0),
)


def main() -> int:
    """Fuzz the chosen targets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, help="inputs of each target (default 100,000)")
    parser.add_argument("--first", type=int, default=0, help="the number of the first input")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=[target.name for target in TARGETS])
    given = parser.parse_args()
    chosen = [target for target in TARGETS if not given.only or target.name in given.only]
    print("| target | inputs | refused by an error of the project's | slowest (CPU) | limit | findings | run |")
    print("|---|---|---|---|---|---|---|")
    failed = []
    for target in chosen:
        run = fuzz(target, given.inputs, first=given.first, seed=given.seed)
        print(
            f"| {target.name} | {run.inputs:,} | {run.refused:,} | {1e3 * run.slowest:.0f} ms | {target.seconds:.0f} s "
            f"| {len(run.findings)} | {run.elapsed:.0f} s |",
            flush=True,
        )
        failed += [f"{target.name}: {finding}" for finding in run.findings]
        if run.inputs < given.inputs:
            failed.append(f"{target.name}: only {run.inputs:,} of {given.inputs:,} inputs were tried")
    for line in failed:
        print(line, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
