"""The one map from domain errors to gRPC status and ErrorInfo reason."""

from datetime import timedelta

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from classifier import errors
from index import errors as index_errors

DOMAIN = "stillwatch"
DETAILS_KEY = "grpc-status-details-bin"
RETRY_AFTER = timedelta(milliseconds=250)

STATUS: dict[type[BaseException], tuple[grpc.StatusCode, str]] = {
    errors.EmptyPrompt: (grpc.StatusCode.INVALID_ARGUMENT, "EMPTY_PROMPT"),
    errors.PromptTooLong: (grpc.StatusCode.INVALID_ARGUMENT, "PROMPT_TOO_LONG"),
    errors.NotUnicode: (grpc.StatusCode.INVALID_ARGUMENT, "NOT_UNICODE"),
    errors.UnknownConversation: (grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_CONVERSATION"),
    errors.InvalidPrompt: (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PROMPT"),
    errors.InvalidRequest: (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
    errors.InvalidSetting: (grpc.StatusCode.FAILED_PRECONDITION, "INVALID_SETTING"),
    errors.Unauthenticated: (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"),
    errors.PermissionDenied: (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"),
    errors.QuotaExceeded: (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED"),
    errors.TooManyItems: (grpc.StatusCode.INVALID_ARGUMENT, "TOO_MANY_ITEMS"),
    errors.Overloaded: (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL"),
    errors.DeadlineTooShort: (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT"),
    errors.ShuttingDown: (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN"),
    errors.ScorerLost: (grpc.StatusCode.UNAVAILABLE, "SCORER_LOST"),
    errors.BundleRejected: (grpc.StatusCode.FAILED_PRECONDITION, "BUNDLE_REJECTED"),
    errors.CanaryFailed: (grpc.StatusCode.FAILED_PRECONDITION, "CANARY_FAILED"),
    errors.ReloadInProgress: (grpc.StatusCode.ABORTED, "RELOAD_IN_PROGRESS"),
    errors.WeightsRejected: (grpc.StatusCode.FAILED_PRECONDITION, "WEIGHTS_REJECTED"),
    errors.DataRejected: (grpc.StatusCode.INVALID_ARGUMENT, "DATA_REJECTED"),
    errors.RunRefused: (grpc.StatusCode.FAILED_PRECONDITION, "RUN_REFUSED"),
    errors.PromotionRefused: (grpc.StatusCode.FAILED_PRECONDITION, "PROMOTION_REFUSED"),
    errors.ServiceFailed: (grpc.StatusCode.UNAVAILABLE, "SERVICE_FAILED"),
    errors.MissingExtra: (grpc.StatusCode.UNIMPLEMENTED, "MISSING_EXTRA"),
    errors.StillwatchError: (grpc.StatusCode.INTERNAL, "INTERNAL"),
    index_errors.InvalidExample: (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_EXAMPLE"),
    index_errors.ExampleConflict: (grpc.StatusCode.ALREADY_EXISTS, "EXAMPLE_CONFLICT"),
    index_errors.ExampleNotFound: (grpc.StatusCode.NOT_FOUND, "EXAMPLE_NOT_FOUND"),
    index_errors.InvalidPageToken: (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN"),
    index_errors.NotAllowed: (grpc.StatusCode.PERMISSION_DENIED, "NOT_ALLOWED"),
    index_errors.StoreUnavailable: (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE"),
    index_errors.IndexRoomError: (grpc.StatusCode.INTERNAL, "INTERNAL"),
}
"""Every class of both error trees; a test holds it to that."""


def status_of(error: BaseException) -> status_pb2.Status:
    """The status that says what went wrong; of an unknown error it says nothing but "internal error".

    Args:
        error: A domain error, or any other.

    Returns:
        Status with ErrorInfo, and RetryInfo where trying again helps.
    """
    code, reason = STATUS.get(type(error), (grpc.StatusCode.INTERNAL, "INTERNAL"))
    known = type(error) in STATUS and code != grpc.StatusCode.INTERNAL
    status = status_pb2.Status(
        code=code_pb2.Code.Value(code.name), message=str(error) if known else "internal error: see the server's log"
    )
    status.details.append(_packed(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN)))
    if code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE):
        delay = duration_pb2.Duration()
        delay.FromTimedelta(_retry_after(error))
        status.details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    if isinstance(error, errors.QuotaExceeded):
        violation = error_details_pb2.QuotaFailure.Violation(subject=error.subject, description=str(error))
        status.details.append(_packed(error_details_pb2.QuotaFailure(violations=[violation])))
    return status


def reason_of(error: BaseException) -> str:
    """The ErrorInfo reason that status_of gives."""
    return STATUS.get(type(error), (grpc.StatusCode.INTERNAL, "INTERNAL"))[1]


def _retry_after(error: BaseException) -> timedelta:
    """A quota's exact wait; the queue's from 10 ms to a minute, by which clients that came at once spread."""
    if isinstance(error, errors.QuotaExceeded):
        return timedelta(seconds=error.retry_after)
    if isinstance(error, errors.Overloaded):
        return timedelta(seconds=min(max(error.retry_after, 0.01), 60.0))
    return RETRY_AFTER


def _packed(
    message: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo | error_details_pb2.QuotaFailure,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
