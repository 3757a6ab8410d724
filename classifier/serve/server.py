"""The server's life: open, listen, serve, drain, close."""

import asyncio
import signal
from collections.abc import Callable

import grpc
import structlog
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from stillwatch.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    classifier_pb2,
    classifier_pb2_grpc,
    examples_pb2,
    examples_pb2_grpc,
    review_pb2,
    review_pb2_grpc,
)

from classifier.canary import check
from classifier.config import Settings
from classifier.runtime import open_runtime
from classifier.serve.admin import AdminServicer
from classifier.serve.batcher import Answer, MicroBatcher
from classifier.serve.cache import VerdictCache
from classifier.serve.drain import Drain
from classifier.serve.edge import Edge
from classifier.serve.example_calls import ExampleCalls
from classifier.serve.examples import ExampleServicer, ReviewServicer, Threads
from classifier.serve.follow import following
from classifier.serve.generations import Generations
from classifier.serve.guard import guard_of
from classifier.serve.listen import is_local, listen, options
from classifier.serve.reload import Reloader
from classifier.serve.review_calls import ReviewCalls
from classifier.serve.scoring import Backend
from classifier.serve.services import ClassifierServicer
from classifier.serve.settle import settle
from classifier.serve.spare import SPARE_RPCS, Spare
from classifier.serve.warm import WARM_UP
from classifier.serve.watch import Watch, open_watch
from classifier.serve.workers import Workers

_ORDINARY = "Could you explain how the tides work, and why there are two high ones each day? " * 3
_WARM_PROMPTS = 16
_WARM_BATCHES = 4
"""From which the queue learns its first rate."""
_log = structlog.get_logger("stillwatch.server")


async def serve(settings: Settings, announce: Callable[[str], None] = lambda _: None) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal ends the process at once.

    Args:
        settings: Everything an operator can set.
        announce: Called once with the address when the server takes requests.

    Raises:
        BundleRejected: When the bundle is missing or does not fit its hashes.
        CanaryFailed: When the bundle decides prompts wrongly whose side is clear.
        StoreUnavailable: When the example store cannot be used.
        ScorerLost: When a scoring process does not start.
        InvalidRequest: When the address cannot be listened on.
        InvalidSetting: When the address needs TLS, or a file of certificates or tokens cannot be used.
    """
    folder = settings.bundle.resolve()
    # Scoring processes keep no sample: what they score is not seen here.
    with open_watch() as watch, open_runtime(settings, sampled=not settings.workers) as runtime:
        moved = check(runtime)
        if moved:
            _log.warning("canaries_moved_by_examples", canaries=moved)
        generations = Generations(runtime, settings)
        version = runtime.bundle.model.version
        del runtime  # a reload puts another one in its place, and this one must then go
        if not settings.workers:
            await _serve(generations, settings, announce, watch)
            return
        workers = Workers(settings.workers)
        await workers.open(folder, settings, version)
        generations.followed_by(workers)
        try:
            await _serve(generations, settings, announce, watch, workers)
        finally:
            await workers.close()


async def _serve(
    generations: Generations,
    settings: Settings,
    announce: Callable[[str], None],
    watch: Watch,
    backend: Backend | None = None,
) -> None:
    stopping = asyncio.Event()
    reloader = Reloader(generations)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _first_signal, stopping)
    loop.add_signal_handler(signal.SIGHUP, reloader.on_signal)
    batcher = MicroBatcher(
        generations.scorer,
        batch_tokens=settings.batch_tokens,
        queue_tokens=settings.queue_tokens,
        queue_seconds=settings.queue_seconds,
        bulk_queue_seconds=settings.bulk_queue_seconds,
        on_batch=watch.batch,
        backend=backend,
    )
    cache = VerdictCache(
        generations.scorer, entries=settings.verdict_cache_entries, most_bytes=settings.verdict_cache_bytes
    )
    drain = Drain()
    guard = guard_of(settings, local=is_local(settings))
    server = grpc.aio.server(
        interceptors=[watch, drain, Edge(), guard, Spare()],
        options=options(settings),
        maximum_concurrent_rpcs=settings.max_concurrent_rpcs + SPARE_RPCS,
    )
    servicer = ClassifierServicer(batcher, cache, settings, drain)
    classifier_pb2_grpc.add_ClassifierServiceServicer_to_server(servicer, server)
    _add_examples(server, generations, settings)
    admin_pb2_grpc.add_AdminServiceServicer_to_server(AdminServicer(reloader), server)
    state = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    names = [_service(file.DESCRIPTOR) for file in (classifier_pb2, examples_pb2, review_pb2, admin_pb2)]
    if settings.reflection:
        reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    if settings.channelz:
        from grpc_channelz.v1 import channelz

        channelz.add_channelz_servicer(server)
    port = listen(server, settings)
    scoring = asyncio.create_task(batcher.run())
    scoring.add_done_callback(lambda _: stopping.set())  # a server that cannot score must not look alive
    for texts in (WARM_UP, *([_ORDINARY] * _WARM_PROMPTS for _ in range(_WARM_BATCHES))):
        for warm in await batcher.submit(texts):
            if not isinstance(warm, Answer):
                raise warm
    generations.sample()
    settle()
    metrics = watch.report(generations.scorer, batcher, settings)
    await server.start()
    for name in ("", *names):
        await state.set(name, health_pb2.HealthCheckResponse.SERVING)
    _log.info("serving", address=f"{settings.host}:{port}", bundle=generations.scorer().model.version, metrics=metrics)
    watching = asyncio.create_task(reloader.watch(settings.bundle, settings.watch_seconds))
    announce(f"{settings.host}:{port}")
    async with following(generations):
        await stopping.wait()
    watching.cancel()
    reloader.stop()
    _log.info("draining", grace_seconds=settings.grace_seconds)
    await state.enter_graceful_shutdown()
    pause = 0.0 if scoring.done() else settings.drain_pause_seconds
    await drain.stop(server, pause=pause, grace=settings.grace_seconds)
    batcher.close()
    await scoring
    await reloader.close()
    _log.info("stopped")


def _add_examples(server: grpc.aio.Server, generations: Generations, settings: Settings) -> None:
    """Give the server the services of examples and of their review, which share their threads."""
    threads = Threads()
    examples = ExampleServicer(ExampleCalls(generations, settings), threads)
    examples_pb2_grpc.add_ExampleServiceServicer_to_server(examples, server)
    reviews = ReviewServicer(ReviewCalls(generations, settings, lambda runtime: runtime.sampling), threads)
    review_pb2_grpc.add_ReviewServiceServicer_to_server(reviews, server)


def _first_signal(stopping: asyncio.Event) -> None:
    """Begin to drain; from now on a signal ends the process at once."""
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)
    stopping.set()


def _service(file: FileDescriptor) -> str:
    (service,) = file.services_by_name.values()
    return str(service.full_name)
