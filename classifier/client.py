"""A typed client of the service: every verb is written once and works for Client and AsyncClient alike.

with Client("127.0.0.1:50551") as client:
    print(client.classify("How do I sort a list?").verdict.extraction_probability)
"""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import grpc
from google.rpc import error_details_pb2, status_pb2
from stillwatch.v1 import admin_pb2, classifier_pb2

from classifier.connect import Credentials, found_credentials, metadata_of, open_async_channel, open_channel
from classifier.errors import NotUnicode, ServiceFailed
from classifier.example_verbs import ExampleVerbs
from classifier.verb import Awaited, Blocking, Call, R, Verb

DEFAULT_TIMEOUT = 30.0
_DETAILS = "grpc-status-details-bin"

Body = bytes
"""A whole request body of an OpenAI or Anthropic API: UTF-8 JSON."""


class _Verbs(ExampleVerbs):
    """What a client can do. A prompt is text, or the bytes of a request body."""

    @Verb
    def classify(self, prompt: str | Body) -> Call[classifier_pb2.ClassifyResponse]:
        """Score one prompt."""
        request = classifier_pb2.ClassifyRequest(prompt=_prompt(prompt))
        return Call("ClassifierService/Classify", request, classifier_pb2.ClassifyResponse)

    @Verb
    def classify_batch(self, prompts: Sequence[str | Body]) -> Call[classifier_pb2.BatchClassifyResponse]:
        """Score several prompts; each result holds a verdict or a status, and the prompt's number as its id."""
        items = [classifier_pb2.BatchItem(id=str(i), prompt=_prompt(prompt)) for i, prompt in enumerate(prompts)]
        request = classifier_pb2.BatchClassifyRequest(items=items)
        return Call("ClassifierService/BatchClassify", request, classifier_pb2.BatchClassifyResponse)

    @Verb
    def reload(self) -> Call[admin_pb2.ReloadResponse]:
        """Take over the current bundle, examples and settings as one; answers when they are in use."""
        return Call("AdminService/Reload", admin_pb2.ReloadRequest(), admin_pb2.ReloadResponse)

    @Verb
    def get_status(self) -> Call[admin_pb2.GetStatusResponse]:
        """Say what the server works with, and what came of its last reload."""
        return Call("AdminService/GetStatus", admin_pb2.GetStatusRequest(), admin_pb2.GetStatusResponse)


class Client(_Verbs, Blocking):
    """The blocking client; safe to use from several threads."""

    def __init__(
        self, address: str, *, timeout: float = DEFAULT_TIMEOUT, credentials: Credentials | None = None
    ) -> None:
        """Connect when first used.

        Args:
            address: Host and port of the server.
            timeout: Seconds that a call may take; a stream has no limit.
            credentials: TLS and token; None takes them from the environment (STILLWATCH_CLIENT_...).

        Raises:
            InvalidSetting: When a file cannot be read, or the token would cross the network in plain text.
        """
        credentials = credentials or found_credentials()
        self._metadata = metadata_of(credentials)
        self._channel = open_channel(address, credentials)
        self._timeout = timeout

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the channel."""
        self.close()

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def classify_stream(
        self, prompts: Iterable[tuple[str, str | Body]]
    ) -> Iterator[classifier_pb2.StreamClassifyResponse]:
        """Score (id, prompt) pairs over one stream; answers come in any order."""
        broken: list[Exception] = []

        def requests() -> Iterator[classifier_pb2.StreamClassifyRequest]:
            try:
                for name, prompt in prompts:
                    yield _stream_request(name, prompt)
            except Exception as error:  # noqa: BLE001  # gRPC would swallow it; it is the caller's
                broken.append(error)

        try:
            yield from _stream(self._channel)(requests(), metadata=self._metadata)
        except grpc.RpcError as error:
            raise _failure(error) from None
        if broken:
            raise broken[0]

    def _perform(self, call: Call[R]) -> R:
        try:
            answer: R = _method(self._channel, call)(call.request, timeout=self._timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise _failure(error) from None
        return answer


class AsyncClient(_Verbs, Awaited):
    """The asyncio client."""

    def __init__(
        self, address: str, *, timeout: float = DEFAULT_TIMEOUT, credentials: Credentials | None = None
    ) -> None:
        """Connect when first used.

        Args:
            address: Host and port of the server.
            timeout: Seconds that a call may take; a stream has no limit.
            credentials: TLS and token; None takes them from the environment (STILLWATCH_CLIENT_...).

        Raises:
            InvalidSetting: When a file cannot be read, or the token would cross the network in plain text.
        """
        credentials = credentials or found_credentials()
        self._metadata = metadata_of(credentials)
        self._channel = open_async_channel(address, credentials)
        self._timeout = timeout

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the channel."""
        await self.close()

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def classify_stream(
        self, prompts: AsyncIterable[tuple[str, str | Body]]
    ) -> AsyncIterator[classifier_pb2.StreamClassifyResponse]:
        """Score (id, prompt) pairs over one stream; answers come in any order."""
        broken: list[Exception] = []

        async def requests() -> AsyncIterator[classifier_pb2.StreamClassifyRequest]:
            try:
                async for name, prompt in prompts:
                    yield _stream_request(name, prompt)
            except Exception as error:  # noqa: BLE001  # gRPC would swallow it; it is the caller's
                broken.append(error)

        try:
            async for answer in _stream(self._channel)(requests(), metadata=self._metadata):
                yield answer
        except grpc.RpcError as error:
            raise _failure(error) from None
        if broken:
            raise broken[0]

    async def _perform(self, call: Call[R]) -> R:
        try:
            answer: R = await _method(self._channel, call)(call.request, timeout=self._timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise _failure(error) from None
        return answer


def _method(channel: Any, call: Call[R]) -> Any:
    return channel.unary_unary(
        f"/stillwatch.v1.{call.method}", type(call.request).SerializeToString, call.response.FromString
    )


def _stream(channel: Any) -> Any:
    return channel.stream_stream(
        "/stillwatch.v1.ClassifierService/StreamClassify",
        classifier_pb2.StreamClassifyRequest.SerializeToString,
        classifier_pb2.StreamClassifyResponse.FromString,
    )


def _stream_request(name: str, prompt: str | Body) -> classifier_pb2.StreamClassifyRequest:
    return classifier_pb2.StreamClassifyRequest(id=name, prompt=_prompt(prompt))


def _prompt(prompt: str | Body) -> classifier_pb2.Prompt:
    if isinstance(prompt, str):
        try:
            return classifier_pb2.Prompt(text=prompt)
        except UnicodeEncodeError:
            raise NotUnicode("the prompt holds an unpaired surrogate: send valid Unicode text") from None
    return classifier_pb2.Prompt(body=classifier_pb2.RequestBody(json=prompt))


def _failure(error: Any) -> ServiceFailed:
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    wait = None
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS:
            for detail in status_pb2.Status.FromString(value).details:
                detail.Unpack(info)
                if detail.Unpack(retry):
                    wait = retry.retry_delay.ToTimedelta().total_seconds()
    return ServiceFailed(error.details() or "no answer from the server", error.code().name, info.reason, wait)
