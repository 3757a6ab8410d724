"""The server's life: open, listen, serve, drain, close."""

import asyncio
import signal
from collections.abc import Callable

import grpc
import structlog
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from stillwatch.v1 import classifier_pb2, classifier_pb2_grpc, examples_pb2, examples_pb2_grpc

from classifier.config import Settings
from classifier.errors import InvalidRequest
from classifier.runtime import Runtime, open_runtime
from classifier.serve.batcher import Answer, MicroBatcher
from classifier.serve.cache import VerdictCache
from classifier.serve.edge import Edge
from classifier.serve.services import ClassifierServicer, ExampleServicer
from classifier.serve.warm import WARM_UP

_log = structlog.get_logger("stillwatch.server")


async def serve(settings: Settings, announce: Callable[[str], None] = lambda _: None) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    Args:
        settings: Everything an operator can set.
        announce: Called once with the address when the server takes requests.

    Raises:
        BundleRejected: When the bundle is missing or does not fit its hashes.
        StoreUnavailable: When the example store cannot be used.
        InvalidRequest: When the address cannot be listened on.
    """
    with open_runtime(settings) as runtime:
        await _serve(runtime, settings, announce)


async def _serve(runtime: Runtime, settings: Settings, announce: Callable[[str], None]) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    batcher = MicroBatcher(runtime.scorer, batch_tokens=settings.batch_tokens, queue_tokens=settings.queue_tokens)
    cache = VerdictCache(
        lambda: runtime.scorer, entries=settings.verdict_cache_entries, most_bytes=settings.verdict_cache_bytes
    )
    server = grpc.aio.server(interceptors=[Edge()], options=_options(settings))
    classifier_pb2_grpc.add_ClassifierServiceServicer_to_server(ClassifierServicer(batcher, cache, settings), server)
    examples_pb2_grpc.add_ExampleServiceServicer_to_server(ExampleServicer(runtime, settings), server)
    state = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    names = [_service(classifier_pb2.DESCRIPTOR), _service(examples_pb2.DESCRIPTOR)]
    if settings.reflection:
        reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    try:
        port = server.add_insecure_port(f"{settings.host}:{settings.port}")
    except RuntimeError:
        raise InvalidRequest(
            f"cannot listen on {settings.host}:{settings.port}: free it, or set STILLWATCH_HOST and STILLWATCH_PORT"
        ) from None
    scoring = asyncio.create_task(batcher.run())
    scoring.add_done_callback(lambda _: stopping.set())  # a server that cannot score must not look alive
    for warm in await batcher.submit(WARM_UP):
        if not isinstance(warm, Answer):
            raise warm
    await server.start()
    for name in ("", *names):
        await state.set(name, health_pb2.HealthCheckResponse.SERVING)
    _log.info("serving", address=f"{settings.host}:{port}", bundle=runtime.scorer.model.version)
    announce(f"{settings.host}:{port}")
    await stopping.wait()
    _log.info("draining", grace_seconds=settings.grace_seconds)
    await state.enter_graceful_shutdown()
    await server.stop(settings.grace_seconds)
    batcher.close()
    await scoring
    _log.info("stopped")


def _service(file: FileDescriptor) -> str:
    (service,) = file.services_by_name.values()
    return str(service.full_name)


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.so_reuseport", 0),
    ]
