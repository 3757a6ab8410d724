"""Scoring on a busy server: it is tried again when the server asks for it, in smaller parts when the time is short, and
given up in the end."""

from typing import Any, Self

import pytest
from stillwatch.v1 import classifier_pb2

from classifier import remote
from classifier.errors import ServiceFailed
from classifier.prompts import NamedPrompt


class BusyClient:
    """Refuses some times, then answers."""

    refusals: list[ServiceFailed]

    def __init__(self, _: str, *, timeout: float = 30.0) -> None:
        self.timeout = timeout

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


class SlowClient(BusyClient):
    """Takes ten seconds for each word, and refuses what would take longer than the call may."""

    asked: list[list[str]]

    def classify_batch(self, prompts: list[str]) -> Any:
        self.asked.append(prompts)
        if 10 * sum(len(prompt.split()) for prompt in prompts) > self.timeout:
            raise ServiceFailed("too late", "DEADLINE_EXCEEDED", "DEADLINE_TOO_SHORT")
        results = [classifier_pb2.BatchResult(id=prompt) for prompt in prompts]
        return classifier_pb2.BatchClassifyResponse(results=results)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> type[SlowClient]:
    SlowClient.asked = []
    monkeypatch.setattr(remote, "Client", SlowClient)
    return SlowClient


def test_what_takes_longer_than_a_call_may_is_asked_in_halves_and_a_single_one_with_patience(
    slow: type[SlowClient],
) -> None:
    prompts = [NamedPrompt(name, text) for name, text in (("a", "x"), ("b", "y"), ("c", "z z z z z"), ("d", "v"))]
    assert [result.id for result in remote.score_remotely(prompts, "server")] == ["a", "b", "c", "d"]
    assert slow.asked == [["x", "y", "z z z z z", "v"], ["x", "y"], ["z z z z z", "v"], *[["z z z z z"]] * 2, ["v"]]


def test_a_prompt_that_takes_too_long_for_all_patience_is_given_up(slow: type[SlowClient]) -> None:
    with pytest.raises(ServiceFailed, match="too late"):
        list(remote.score_remotely([NamedPrompt("a", "x " * 1_000)], "server"))
    assert len(slow.asked) == 2
