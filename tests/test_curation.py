"""The example verbs on the local store: what they refuse before anything is stored."""

from pathlib import Path

import pytest
import variants

from classifier.config import Settings
from classifier.curation import example_row, open_examples, read_examples
from classifier.errors import DataRejected
from index.errors import InvalidExample

ROW = {"text": "a ferry to the island at noon", "label": "benign"}


def test_the_source_of_the_bundles_own_examples_is_refused_on_the_local_store(tmp_path: Path) -> None:
    with open_examples(Settings(home=variants.make_home(tmp_path)), None) as examples:
        with pytest.raises(InvalidExample, match="name another one"):
            examples.add([example_row(ROW), example_row({**ROW, "text": "another", "source": "seed"})])
        assert examples.list(None, "desk", 10) == []
        (stored,) = examples.add([example_row({**ROW, "source": "desk"})])
        assert [found.id for found in examples.list(None, "desk", 10)] == [stored.id]


@pytest.mark.parametrize(("row", "source"), [('"source": "seed"', "desk"), ('"note": ""', "seed")])
def test_an_import_under_the_source_of_the_bundle_names_the_line(tmp_path: Path, row: str, source: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(f'{{"text": "a ferry", "label": "benign", {row}}}\n')
    with pytest.raises(DataRejected, match=r'rows\.jsonl, line 1: source "seed" is kept .* nothing was imported'):
        read_examples(file, source)
