"""A client's verb: written once, performed at once by a blocking client and awaited by an asyncio one."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from google.protobuf.message import Message

P = ParamSpec("P")
R = TypeVar("R", bound=Message)


@dataclass(frozen=True, slots=True)
class Call(Generic[R]):
    """One call.

    Attributes:
        method: Service and method, such as "ExampleService/GetExample".
        request: What is sent.
        response: The class of what comes back.
    """

    method: str
    request: Any
    response: type[R]


class Blocking(ABC):
    """A client that answers when the call has ended."""

    @abstractmethod
    def _perform(self, call: Call[R]) -> R: ...


class Awaited(ABC):
    """A client whose answers are awaited."""

    @abstractmethod
    async def _perform(self, call: Call[R]) -> R: ...


class Verb(Generic[P, R]):
    """A method that builds a call; its owner performs it, now or awaited."""

    def __init__(self, build: Callable[Concatenate[Any, P], Call[R]]) -> None:
        """Wrap the method that builds the call."""
        self._build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, client: Blocking, owner: type) -> Callable[P, R]: ...
    @overload
    def __get__(self, client: Awaited, owner: type) -> Callable[P, Awaitable[R]]: ...
    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    def __get__(self, client: Any, owner: type) -> Any:
        """The verb of one client."""
        if client is None:
            return self

        def perform(*args: P.args, **kwargs: P.kwargs) -> Any:
            return client._perform(self._build(client, *args, **kwargs))  # the verb is the client's own

        perform.__doc__ = self.__doc__
        return perform
