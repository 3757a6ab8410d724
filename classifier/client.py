"""A typed client of the service: every verb is written once and works for Client and AsyncClient alike.

with Client("127.0.0.1:50551") as client:
    print(client.classify("How do I sort a list?").verdict.extraction_probability)
"""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload
from uuid import uuid4

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from stillwatch.v1 import admin_pb2, classifier_pb2, examples_pb2

from classifier.connect import Credentials, found_credentials, metadata_of, open_async_channel, open_channel
from classifier.errors import NotUnicode, ServiceFailed

P = ParamSpec("P")
R = TypeVar("R", bound=Message)
DEFAULT_TIMEOUT = 30.0
_DETAILS = "grpc-status-details-bin"

Body = bytes
"""A whole request body of an OpenAI or Anthropic API: UTF-8 JSON."""


@dataclass(frozen=True, slots=True)
class _Call(Generic[R]):
    method: str
    request: Any
    response: type[R]


class _Verb(Generic[P, R]):
    """A method that builds a call; its owner performs it, now or awaited."""

    def __init__(self, build: Callable[Concatenate[Any, P], _Call[R]]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, client: "Client", owner: type) -> Callable[P, R]: ...
    @overload
    def __get__(self, client: "AsyncClient", owner: type) -> Callable[P, Awaitable[R]]: ...
    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    def __get__(self, client: Any, owner: type) -> Any:
        if client is None:
            return self

        def perform(*args: P.args, **kwargs: P.kwargs) -> Any:
            return client._perform(self._build(client, *args, **kwargs))  # the verb is the client's own

        perform.__doc__ = self.__doc__
        return perform


class _Verbs:
    """What a client can do. A prompt is text, or the bytes of a request body."""

    @_Verb
    def classify(self, prompt: str | Body) -> _Call[classifier_pb2.ClassifyResponse]:
        """Score one prompt."""
        request = classifier_pb2.ClassifyRequest(prompt=_prompt(prompt))
        return _Call("ClassifierService/Classify", request, classifier_pb2.ClassifyResponse)

    @_Verb
    def classify_batch(self, prompts: Sequence[str | Body]) -> _Call[classifier_pb2.BatchClassifyResponse]:
        """Score several prompts; each result holds a verdict or a status, and the prompt's number as its id."""
        items = [classifier_pb2.BatchItem(id=str(i), prompt=_prompt(prompt)) for i, prompt in enumerate(prompts)]
        request = classifier_pb2.BatchClassifyRequest(items=items)
        return _Call("ClassifierService/BatchClassify", request, classifier_pb2.BatchClassifyResponse)

    @_Verb
    def add_examples(
        self, examples: Sequence[examples_pb2.Example], request_id: str = ""
    ) -> _Call[examples_pb2.AddExamplesResponse]:
        """Store examples, all or none; they are durable and searchable when this returns."""
        request = examples_pb2.AddExamplesRequest(request_id=request_id or str(uuid4()), examples=examples)
        return _Call("ExampleService/AddExamples", request, examples_pb2.AddExamplesResponse)

    @_Verb
    def get_example(self, id: str) -> _Call[examples_pb2.GetExampleResponse]:
        """Return one example."""
        request = examples_pb2.GetExampleRequest(id=id)
        return _Call("ExampleService/GetExample", request, examples_pb2.GetExampleResponse)

    @_Verb
    def list_examples(
        self,
        page_size: int = 0,
        page_token: str = "",
        label: examples_pb2.Label.ValueType = examples_pb2.LABEL_UNSPECIFIED,
        source: str = "",
    ) -> _Call[examples_pb2.ListExamplesResponse]:
        """Return a page of examples, oldest first."""
        request = examples_pb2.ListExamplesRequest(
            page_size=page_size, page_token=page_token, label=label, source=source
        )
        return _Call("ExampleService/ListExamples", request, examples_pb2.ListExamplesResponse)

    @_Verb
    def find_neighbours(
        self, text: str, limit: int = 0, label: examples_pb2.Label.ValueType = examples_pb2.LABEL_UNSPECIFIED
    ) -> _Call[examples_pb2.FindNeighboursResponse]:
        """Return the examples nearest to a text."""
        request = examples_pb2.FindNeighboursRequest(text=text, limit=limit, label=label)
        return _Call("ExampleService/FindNeighbours", request, examples_pb2.FindNeighboursResponse)

    @_Verb
    def reload(self) -> _Call[admin_pb2.ReloadResponse]:
        """Take over the current bundle, examples and settings as one; answers when they are in use."""
        return _Call("AdminService/Reload", admin_pb2.ReloadRequest(), admin_pb2.ReloadResponse)

    @_Verb
    def get_status(self) -> _Call[admin_pb2.GetStatusResponse]:
        """Say what the server works with, and what came of its last reload."""
        return _Call("AdminService/GetStatus", admin_pb2.GetStatusRequest(), admin_pb2.GetStatusResponse)


class Client(_Verbs):
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

    def _perform(self, call: _Call[R]) -> R:
        try:
            answer: R = _method(self._channel, call)(call.request, timeout=self._timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise _failure(error) from None
        return answer


class AsyncClient(_Verbs):
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

    async def _perform(self, call: _Call[R]) -> R:
        try:
            answer: R = await _method(self._channel, call)(call.request, timeout=self._timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise _failure(error) from None
        return answer


def _method(channel: Any, call: _Call[R]) -> Any:
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
