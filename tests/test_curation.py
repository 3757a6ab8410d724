"""The example verbs on the local store: what they refuse before anything is stored."""

from pathlib import Path

import grpc
import pytest
import variants
from serving import running_server
from stillwatch.v1 import examples_pb2, examples_pb2_grpc

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


def test_examples_that_exceed_a_message_together_are_listed_in_pages_that_any_client_takes(tmp_path: Path) -> None:
    rows = [example_row({**ROW, "text": f"{number} " + "word " * 18_800, "source": "desk"}) for number in range(50)]
    settings = Settings(home=variants.make_home(tmp_path))
    with open_examples(settings, None) as local:
        local.add(rows)
    with (
        running_server(settings.home, max_message_bytes=2**20) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        stub = examples_pb2_grpc.ExampleServiceStub(channel)
        asked = examples_pb2.ListExamplesRequest(page_size=100, source="desk")
        page = stub.ListExamples(asked, timeout=20)
        assert page.next_page_token
        with open_examples(settings, server.address) as remote:
            assert len(remote.list(None, "desk", 100)) == 50
