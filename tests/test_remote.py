"""Scoring on a busy server: it is tried again when the server asks for it, and given up in the end."""

from typing import Any, Self

import pytest
from stillwatch.v1 import classifier_pb2

from classifier import remote
from classifier.errors import ServiceFailed
from classifier.prompts import NamedPrompt


class BusyClient:
    """Refuses some times, then answers."""

    refusals: list[ServiceFailed]

    def __init__(self, _: str) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def classify_batch(self, prompts: list[str]) -> Any:
        if self.refusals:
            raise self.refusals.pop(0)
        results = [classifier_pb2.BatchResult(id=str(number)) for number in range(len(prompts))]
        return classifier_pb2.BatchClassifyResponse(results=results)


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    seconds: list[float] = []
    monkeypatch.setattr(remote, "Client", BusyClient)
    monkeypatch.setattr("classifier.remote.time.sleep", seconds.append)
    return seconds


def refused(reason: str = "QUEUE_FULL", retry_after: float | None = None) -> ServiceFailed:
    return ServiceFailed("busy", "RESOURCE_EXHAUSTED", reason, retry_after)


def test_it_waits_as_long_as_the_server_asks_and_no_longer_than_bearable(waited: list[float]) -> None:
    BusyClient.refusals = [refused(retry_after=0.07), refused(), refused("QUOTA_EXCEEDED", 3_600.0)]
    results = list(remote.score_remotely([NamedPrompt("a", "text")], "server"))
    assert [result.id for result in results] == ["a"]
    assert waited == [0.07, 0.25, 10.0]


def test_it_gives_up_in_the_end(waited: list[float]) -> None:
    BusyClient.refusals = [refused(retry_after=0.01) for _ in range(100)]
    with pytest.raises(ServiceFailed, match="too busy"):
        list(remote.score_remotely([NamedPrompt("a", "text")], "server"))
    assert 10 < len(waited) < 100


def test_another_error_is_not_tried_again(waited: list[float]) -> None:
    BusyClient.refusals = [refused("PERMISSION_DENIED")]
    with pytest.raises(ServiceFailed, match="busy"):
        list(remote.score_remotely([NamedPrompt("a", "text")], "server"))
    assert waited == []
