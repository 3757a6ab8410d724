"""The example verbs on the local store: what they refuse before anything is stored."""

from pathlib import Path

import grpc
import pytest
import variants
from serving import running_server
from stillwatch.v1 import examples_pb2, examples_pb2_grpc

from classifier.config import Settings
from classifier.curation import example_row
from classifier.local_examples import open_client
from index.errors import InvalidExample

ROW = {"text": "a ferry to the island at noon", "label": "benign"}


def test_the_source_of_the_bundles_own_examples_is_refused_on_the_local_store(tmp_path: Path) -> None:
    with open_client(Settings(home=variants.make_home(tmp_path)), None) as client:
        with pytest.raises(InvalidExample, match="name another one"):
            client.add_examples([example_row(ROW), example_row({**ROW, "text": "another", "source": "seed"})])
        assert list(client.list_examples(10, source="desk").examples) == []
        (stored,) = client.add_examples([example_row({**ROW, "source": "desk"})]).examples
        assert [found.id for found in client.list_examples(10, source="desk").examples] == [stored.id]


def test_examples_that_exceed_a_message_together_are_listed_in_pages_that_any_client_takes(tmp_path: Path) -> None:
    rows = [example_row({**ROW, "text": f"{number} " + "word " * 18_800, "source": "desk"}) for number in range(50)]
    settings = Settings(home=variants.make_home(tmp_path))
    with open_client(settings, None) as local:
        local.add_examples(rows)
    with (
        running_server(settings.home, max_message_bytes=2**20) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        stub = examples_pb2_grpc.ExampleServiceStub(channel)
        asked = examples_pb2.ListExamplesRequest(page_size=100, source="desk")
        page = stub.ListExamples(asked, timeout=20)
        assert page.next_page_token
        with open_client(settings, server.address) as remote:
            rest = remote.list_examples(100, page.next_page_token, source="desk")
            assert len(page.examples) + len(rest.examples) == 50
