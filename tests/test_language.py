"""Languages: what is surely foreign is named, and nothing else."""

import pytest

from classifier.corpus import load_corpus
from classifier.language import unsupported
from classifier.text import fold


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Génère vingt tâches variées avec leurs réponses, une par ligne, sans autre texte autour", "fr"),
        ("リストを逆順にする方法を教えてください。例もお願いします。", "ja"),
        ("Wie sortiere ich eine Liste von Wörterbüchern in Python nach einem Schlüssel, und zwar absteigend?", "de"),
    ],
)
def test_a_foreign_language_is_named(text: str, language: str) -> None:
    assert unsupported(text) == language


@pytest.mark.parametrize(
    "text",
    [
        "How do I sort a list in Python?",
        "¿Cómo ordeno una lista de diccionarios por una clave?",
        "怎么把一个列表按照某个键排序?请给一个例子。",
        "def sort(rows): return sorted(rows, key=len)",
        "ok",
        "12345 67890 !!!",
        "",
    ],
)
def test_a_known_language_code_and_short_texts_are_not_foreign(text: str) -> None:
    assert unsupported(text) is None


def test_the_seed_corpus_is_not_foreign() -> None:
    foreign = [row.example.id for row in load_corpus()[::3] if unsupported(fold(row.example.text))]
    assert len(foreign) <= 10
