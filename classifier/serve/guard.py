"""Who may call what, how much of it, and how much at once: the interceptor between the edge and the servicers."""

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import grpc

from classifier.address import peer_host
from classifier.config import Settings
from classifier.errors import (
    DeadlineTooShort,
    Overloaded,
    PermissionDenied,
    ShuttingDown,
    StillwatchError,
    Unauthenticated,
)
from classifier.serve.calls import current_call
from classifier.serve.drain import holding
from classifier.serve.edge import abort
from classifier.serve.handlers import Handler, rewrapped
from classifier.serve.quota import Quota, Quotas
from classifier.serve.status import status_of
from classifier.serve.watched import Watched
from classifier.tokens import Scope, Token, digest, read_tokens

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Open(StrEnum):
    """What is asked for where no scope is."""

    TO_ALL = "open to all"
    TO_ANY_TOKEN = "open to any token"  # noqa: S105  # no password


NEEDED: Mapping[str, Scope | Open] = {
    "/grpc.health.v1.Health/": Open.TO_ALL,
    "/grpc.reflection.v1alpha.ServerReflection/": Open.TO_ANY_TOKEN,
    "/grpc.reflection.v1.ServerReflection/": Open.TO_ANY_TOKEN,
    "/grpc.channelz.v1.Channelz/": Scope.ADMIN,
    "/stillwatch.v1.AdminService/": Scope.ADMIN,
    "/stillwatch.v1.ClassifierService/Classify": Scope.CLASSIFY,
    "/stillwatch.v1.ClassifierService/BatchClassify": Scope.CLASSIFY,
    "/stillwatch.v1.ClassifierService/StreamClassify": Scope.CLASSIFY,
    "/stillwatch.v1.ExampleService/AddExamples": Scope.EXAMPLES_WRITE,
    "/stillwatch.v1.ExampleService/AcceptExamples": Scope.EXAMPLES_ACCEPT,
    "/stillwatch.v1.ExampleService/RejectExamples": Scope.EXAMPLES_WRITE,
    "/stillwatch.v1.ExampleService/RevokeExamples": Scope.EXAMPLES_WRITE,
    "/stillwatch.v1.ExampleService/RevokeSource": Scope.ADMIN,
    "/stillwatch.v1.ExampleService/RestoreExamples": Scope.EXAMPLES_WRITE,
    "/stillwatch.v1.ExampleService/RelabelExamples": Scope.EXAMPLES_WRITE,
    "/stillwatch.v1.ExampleService/SupersedeExample": Scope.EXAMPLES_WRITE,
    "/stillwatch.v1.ExampleService/GetExample": Scope.EXAMPLES_READ,
    "/stillwatch.v1.ExampleService/ListExamples": Scope.EXAMPLES_READ,
    "/stillwatch.v1.ExampleService/ListChanges": Scope.EXAMPLES_READ,
    "/stillwatch.v1.ExampleService/FindNeighbours": Scope.EXAMPLES_READ,
    "/stillwatch.v1.ReviewService/PreviewImpact": Scope.EXAMPLES_READ,
    "/stillwatch.v1.ReviewService/RecordDecisions": Scope.EXAMPLES_WRITE,
    "/stillwatch.v1.ReviewService/FindDecisions": Scope.EXAMPLES_READ,
}
"""What each method, or a service's every method, asks for. What is missing here is refused."""

_MOST_TOKEN_CHARS = 512
_BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call.

    Attributes:
        id: The caller in quotas and logs: "token:gateway", "certificate:CN=gateway" or "peer:10.0.0.1".
        name: The token's name or the certificate's subject; "" when nobody vouches for the caller.
        scopes: What the caller may do.
    """

    id: str
    name: str = ""
    scopes: frozenset[Scope] = frozenset()


NOBODY = Caller("peer:unknown")
_caller: ContextVar[Caller] = ContextVar("caller", default=NOBODY)


def current_caller() -> Caller:
    """Who makes the call that this task answers."""
    return _caller.get()


class TokenBook:
    """The tokens of a file that is read again when it changes."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Args:
            path: The tokens file.

        Raises:
            InvalidSetting: When it cannot be used.
        """
        self._key = secrets.token_bytes(32)
        self._tokens = Watched([path], lambda: {self._keyed(token.sha256): token for token in read_tokens(path)})

    def find(self, secret: str) -> Token | None:
        """The token that a caller shows; None when there is no such token.

        The table is entered with a keyed hash of the hash, so that the time it takes tells nothing of what it holds,
        and what is found is compared in constant time.
        """
        shown = digest(secret)
        token = self._tokens.current().get(self._keyed(shown))
        return token if token is not None and hmac.compare_digest(token.sha256, shown) else None

    def _keyed(self, sha256: str) -> bytes:
        return hmac.digest(self._key, sha256.encode(), hashlib.sha256)


class Guard(grpc.aio.ServerInterceptor):
    """Refuses before a message is read: unknown callers, missing scopes. Then holds callers to their quotas."""

    def __init__(
        self, tokens: TokenBook | None, default: Quota, *, anonymous: frozenset[Scope], most_calls: int
    ) -> None:
        """Guard every service of a server.

        Args:
            tokens: Who may call; None asks nobody for a token.
            default: The share of callers whose token has none of its own.
            anonymous: What callers may do when nobody is asked for a token.
            most_calls: The most calls of Stillwatch's own services that may be under way.
        """
        self._tokens = tokens
        self._default = default
        self._quotas = Quotas()
        self._anonymous = anonymous
        self._most_calls = most_calls
        self._calls = 0

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """Refuse the call, or put the quota around its handler."""
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        need = needed(method)
        if handler is None or need is Open.TO_ALL:
            return handler
        try:
            metadata = tuple(handler_call_details.invocation_metadata or ())
            token = self._admitted(method, need, metadata)
        except StillwatchError as error:
            return _refusal(error)
        if not method.startswith("/stillwatch."):
            return handler
        admitted = partial(self._admitted, method, need, metadata)
        return rewrapped(
            handler,
            lambda behaviour, streaming: (
                self._stream(behaviour, token, admitted) if streaming else self._unary(behaviour, token)
            ),
        )

    def _admitted(self, method: str, need: Scope | Open | None, metadata: Iterable[tuple[str, Any]]) -> Token | None:
        if need is None:
            raise PermissionDenied(f"{method} is not in the table of scopes: nobody may call it")
        if self._tokens is None:
            if need is not Open.TO_ANY_TOKEN and need not in self._anonymous:
                raise PermissionDenied(f"{method} needs a token of scope {need}: this server has no tokens_file")
            return None
        secret = _bearer(metadata)
        if secret is None:
            raise Unauthenticated('the call brings no token: send the metadata "authorization: Bearer <token>"')
        token = self._tokens.find(secret)
        if token is None:
            raise Unauthenticated("the token is not known here: make one by  stillwatch tokens new")
        if need is not Open.TO_ANY_TOKEN and need not in token.scopes:
            raise PermissionDenied(f"the token {token.name} has not the scope {need}: add it to the tokens file")
        return token

    def _unary(self, behaviour: Any, token: Token | None) -> Callable[[Any, Context], Awaitable[Any]]:
        async def handle(message: Any, context: Context) -> Any:
            with self._counted():
                caller = self._identified(token, context)
                cost, quota = _cost(message), self._quota(token)
                self._quotas.charge(caller.id, cost, quota)
                try:
                    return await behaviour(message, context)
                except (Overloaded, DeadlineTooShort, ShuttingDown):
                    self._quotas.refund(caller.id, cost, quota)
                    raise

        return handle

    def _stream(
        self, behaviour: Any, token: Token | None, admitted: Callable[[], Token | None]
    ) -> Callable[[Any, Context], Awaitable[Any]]:
        async def paced(messages: Any, caller: Caller) -> AsyncIterator[Any]:
            async for message in messages:
                # Time, not an event, fills a bucket. A token that was taken back meanwhile ends the stream.
                while wait := self._quotas.wait(caller.id, _cost(message), self._quota(admitted())):
                    with holding():
                        await asyncio.sleep(wait)
                yield message

        async def handle(messages: Any, context: Context) -> Any:
            with self._counted():
                return await behaviour(paced(messages, self._identified(token, context)), context)

        return handle

    def _identified(self, token: Token | None, context: Context) -> Caller:
        """Who calls; the rest of the call's task may ask for it by current_caller."""
        if token is not None:
            caller = Caller(f"token:{token.name}", token.name, token.scopes)
        else:
            subject = next(iter(context.auth_context().get("x509_subject", ())), b"").decode(errors="replace")[:256]
            name = f"certificate:{subject}" if subject else f"peer:{peer_host(context.peer())}"
            caller = Caller(name, subject, self._anonymous)
        _caller.set(caller)
        call = current_call()
        if call is not None:
            call.caller = caller.name
        return caller

    def _quota(self, token: Token | None) -> Quota:
        if token is None:
            return self._default
        tokens, requests = token.tokens_per_minute, token.requests_per_second
        return Quota(
            self._default.tokens_per_minute if tokens is None else tokens,
            self._default.requests_per_second if requests is None else requests,
        )

    @contextmanager
    def _counted(self) -> Iterator[None]:
        if self._calls >= self._most_calls:
            raise Overloaded("too many calls are under way: try again in a moment")
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1


def guard_of(settings: Settings, *, local: bool) -> Guard:
    """The guard that the settings ask for.

    Args:
        settings: Tokens, quotas and limits.
        local: Whether the server listens on loopback alone. Beyond it, callers without a token may only classify.

    Returns:
        The guard.

    Raises:
        InvalidSetting: When the tokens file cannot be used.
    """
    tokens = None if settings.tokens_file is None else TokenBook(settings.tokens_file.expanduser())
    quota = Quota(settings.quota_tokens_per_minute, settings.quota_requests_per_second)
    anonymous = frozenset(Scope) if local else frozenset({Scope.CLASSIFY})
    return Guard(tokens, quota, anonymous=anonymous, most_calls=settings.max_concurrent_rpcs)


def needed(method: str) -> Scope | Open | None:
    """What a method asks for; None when the table does not know it.

    Args:
        method: For example "/stillwatch.v1.ClassifierService/Classify".

    Returns:
        The scope.
    """
    return NEEDED.get(method) or NEEDED.get(method[: method.rfind("/") + 1])


def _bearer(metadata: Iterable[tuple[str, Any]]) -> str | None:
    values = [value for key, value in metadata if key == "authorization"]
    if len(values) != 1 or not isinstance(values[0], str):
        return None
    kind, _, secret = values[0].partition(" ")
    return secret if kind.lower() == "bearer" and 0 < len(secret) <= _MOST_TOKEN_CHARS else None


def _cost(message: Any) -> int:
    """A message's prompt tokens, by estimate from its size."""
    return int(message.ByteSize()) // _BYTES_PER_TOKEN + 1


def _refusal(error: StillwatchError) -> Handler:
    """Answers with an error. As a stream, so that not even the message of a unary call is read."""

    async def refuse(_messages: Any, context: Context) -> None:
        await abort(context, status_of(error))

    return grpc.stream_stream_rpc_method_handler(refuse)
