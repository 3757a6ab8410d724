"""What every interceptor does with a handler: keep its messages' form and put something around its behaviour."""

from collections.abc import Callable
from typing import Any, TypeAlias

import grpc

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Wrap: TypeAlias = Callable[[Any, bool], Any]


def rewrapped(handler: Any, wrap: Wrap, decode: Callable[[bytes], Any] | None = None) -> Handler:
    """A handler of one of Stillwatch's own methods, which are unary or streams both ways, with another behaviour.

    Args:
        handler: What is called now.
        wrap: Takes its behaviour and whether that is a stream's; returns what is called instead.
        decode: Reads a message in place of the handler's own way.

    Returns:
        The new handler.
    """
    decode = decode or handler.request_deserializer
    if handler.stream_stream is not None:
        return grpc.stream_stream_rpc_method_handler(
            wrap(handler.stream_stream, True), decode, handler.response_serializer
        )
    return grpc.unary_unary_rpc_method_handler(wrap(handler.unary_unary, False), decode, handler.response_serializer)
