"""The template fingerprint: one key for prompts that fill the slots of one template differently.

It is the hash of the first words of a prompt after everything that a slot holds was taken away: numbers, quotations,
code, links, bracketed placeholders, and names, that is capitalised words inside a sentence. It needs no knowledge of
other prompts, so every run on every machine gives a prompt the same key. Measured by `benchmarks/templates.py` beside
MinHash, which is slower and falls apart where a slot is longer than the template.
"""

import hashlib
import re

TEMPLATE_VERSION = 1
"""Counts the forms of the fingerprint; keys of different versions do not compare."""
WORDS = 8
"""So many words tell templates apart (six merge more, ten split more)."""
_HEAD = 1_500
_SLOT = re.compile(
    r"```.*?(?:```|\Z)"
    r'|"[^"\n]{1,400}"|“[^”\n]{1,400}”|`[^`\n]{1,400}`|https?://\S{1,400}|<[^<>\n]{1,200}>'
    r"|\{[^{}\n]{0,300}\}|\[[^\[\]\n]{0,300}\]",
    re.DOTALL,
)
_NUMBER = re.compile(r"\d[\d.,:/-]*")
_NAME = re.compile(r"(?:(?<=[^\W_A-Z.!?:;\n]\s)|(?<=,\s))[A-Z][\w-]*(?:\s+[A-Z][\w-]*)*")
_IDEOGRAPHS = r"\u2e80-\ua48f\uac00-\ud7ff\uf900-\ufaff"  # scripts without spaces: each character is a word
_WORD = re.compile(rf"[{_IDEOGRAPHS}]|[^\W\d_{_IDEOGRAPHS}]+")


def template(text: str) -> str:
    """The fingerprint of a prompt's template.

    Args:
        text: A prompt in canonical form.

    Returns:
        16 hexadecimal digits. Prompts of one template share them unless the template begins with a slot; a text without
        any word outside its slots has the key of the empty text.
    """
    words = frame(text[:_HEAD])[:WORDS]
    return hashlib.blake2b(" ".join(words).encode(), digest_size=8, person=b"template%d" % TEMPLATE_VERSION).hexdigest()


def frame(text: str) -> list[str]:
    """The words of a text that stand outside its slots, in lower case."""
    for slot in (_SLOT, _NUMBER, _NAME):
        text = slot.sub(" ", text)
    return _WORD.findall(text.lower())
