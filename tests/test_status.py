"""The map from errors to statuses is total, and says nothing it should not."""

from collections.abc import Iterator

import grpc
import pytest
from google.rpc import error_details_pb2

from classifier import errors
from classifier.serve.status import STATUS, status_of
from index import errors as index_errors


def tree(root: type[Exception]) -> Iterator[type[Exception]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


@pytest.mark.parametrize("error", [*tree(errors.StillwatchError), *tree(index_errors.IndexRoomError)])
def test_every_domain_error_has_a_status_and_a_reason(error: type[Exception]) -> None:
    code, reason = STATUS[error]
    assert code != grpc.StatusCode.OK
    assert reason.isupper()


def test_a_domain_errors_message_and_reason_are_on_the_wire() -> None:
    status = status_of(errors.EmptyPrompt("the prompt is empty"))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (status.code, status.message, info.reason) == (3, "the prompt is empty", "EMPTY_PROMPT")


@pytest.mark.parametrize("error", [ValueError("secret prompt"), errors.StillwatchError("secret prompt")])
def test_an_unforeseen_errors_words_never_reach_the_wire(error: Exception) -> None:
    status = status_of(error)
    assert status.code == 13
    assert "secret" not in str(status)


def test_where_trying_again_helps_the_status_says_when() -> None:
    kinds = [detail.TypeName() for detail in status_of(errors.Overloaded("full")).details]
    assert "google.rpc.RetryInfo" in kinds
