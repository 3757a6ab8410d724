"""The template fingerprint: what survives changed slots, and what does not."""

import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.batch.template import template

ONE = "Write a short story of {} words about {} for the reader, and end it well."


def test_prompts_of_one_template_share_their_key() -> None:
    slots = [(200, '"a lonely lighthouse"'), (35, "`main()`"), (1_000, "Marie Curie"), (7, "[TOPIC]"), (9, "{topic}")]
    assert len({template(ONE.format(*slot)) for slot in slots}) == 1


def test_what_follows_the_head_does_not_change_the_key() -> None:
    head = "Translate the following passage into plain English and keep its meaning:\n\n"
    assert template(head + "The cat sat.") == template(head + "Of all the ships that ever sailed, none was as old.")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Summarise the text below in two sentences.", "Classify the text below by its mood."),
        ("你需要尽可能给出多样化的任务指令", "请把下面的文章翻译成英文并保留原意"),
        ("How do I sort a list in Python?", "How do I sort a dict in Python?"),
    ],
)
def test_other_templates_have_other_keys(one: str, other: str) -> None:
    assert template(one) != template(other)


def test_a_text_of_slots_alone_has_the_key_of_the_empty_text() -> None:
    assert template("42 17") == template('"quoted"') == template("")


def test_the_key_is_the_same_in_every_process_and_for_ever() -> None:
    # Kept scores are joined by this key: if it must change, TEMPLATE_VERSION rises, and old runs no longer compare.
    asked = "from classifier.batch.template import template; print(template('Write 3 tests for the parser.'))"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == template("Write 3 tests for the parser.") == "bc544c2fa5a28225"


@given(st.text(max_size=300), st.integers(0, 10**12))
def test_any_text_has_a_key_and_a_number_within_it_is_a_slot(text: str, number: int) -> None:
    head = "Answer the question that follows as well as you can"
    assert template(f"{head} {number} {text}") == template(f"{head} 7 {text}")
    assert re.fullmatch(r"[0-9a-f]{16}", template(text))
