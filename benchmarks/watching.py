"""What watching costs: the same calls through an in-process server, with and without the watch, in turns.

Prints a Markdown table. The server's work is a fixed answer, so that the difference is the watch's alone; it is set against
the p50 of Classify on a real server. Run alone:  python benchmarks/watching.py
"""

import argparse
import asyncio
import time
from statistics import median
from typing import Any

import grpc
from stillwatch.v1 import classifier_pb2, classifier_pb2_grpc
from texts import texts_of_length

from classifier.config import Settings
from classifier.corpus import load_corpus
from classifier.runtime import open_runtime
from classifier.serve.batcher import Answer, MicroBatcher
from classifier.serve.cache import VerdictCache
from classifier.serve.calls import Call, note
from classifier.serve.drain import Drain
from classifier.serve.edge import Edge
from classifier.serve.log import configure_logging
from classifier.serve.metrics import Metrics
from classifier.serve.services import ClassifierServicer
from classifier.serve.tracing import Tracing
from classifier.serve.watch import Watch

METHOD = "/stillwatch.v1.ClassifierService/Classify"


class Context:
    """What the watch asks a call's context."""

    def code(self) -> None:
        """Nothing was set: the call went well."""


def tracing() -> Tracing:
    """Tracing whose spans are made and thrown away."""
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

    class Nowhere(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:  # noqa: ARG002  # the library's signature
            return SpanExportResult.SUCCESS

    return Tracing(SimpleSpanProcessor(Nowhere()))


async def handlers_cost(answer: Answer, watch: Watch | None, calls: int) -> float:
    """Microseconds of one call of a handler that answers at once."""

    async def behaviour(message: object, context: object) -> Answer:  # noqa: ARG001  # a handler's signature
        note(answer)
        return answer

    context = Context()
    started = time.perf_counter()
    for _ in range(calls):
        if watch is None:
            await behaviour(None, context)
        else:
            await watch._watched(METHOD, (("user-agent", "x"),), behaviour, streaming=False)(None, context)  # noqa: SLF001
    return 1e6 * (time.perf_counter() - started) / calls


async def served(runtime: Any, settings: Settings, watch: Watch | None, texts: list[str]) -> float:
    """Milliseconds, p50, of Classify at one caller."""
    hook = watch.batch if watch is not None else lambda calls, scored: None
    batcher = MicroBatcher(lambda: runtime.scorer, batch_tokens=4_096, queue_tokens=262_144, on_batch=hook)
    server = grpc.aio.server(interceptors=[*([watch] if watch is not None else []), Edge()])
    cache = VerdictCache(lambda: runtime.scorer, entries=0, most_bytes=0)
    servicer = ClassifierServicer(batcher, cache, settings, Drain())
    classifier_pb2_grpc.add_ClassifierServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    scoring = asyncio.create_task(batcher.run())
    await server.start()
    took = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = classifier_pb2_grpc.ClassifierServiceStub(channel)
        for text in texts:
            request = classifier_pb2.ClassifyRequest(prompt=classifier_pb2.Prompt(text=text))
            started = time.perf_counter()
            await stub.Classify(request)
            took.append(1_000 * (time.perf_counter() - started))
    await server.stop(None)
    batcher.close()
    await scoring
    return median(took)


async def measure(rounds: int, calls: int) -> None:
    """Measure in turns and print the table."""
    settings = Settings()
    with open_runtime(settings) as runtime:
        texts = texts_of_length(load_corpus(), runtime.scorer.model.encoder, 64, 40)
        scored = runtime.scorer.score(texts[:1])
        answer = Answer(scored.verdicts[0], scored.provenance, scored.times, 0.1, 1)
        watches = {"none": None, "metrics": Watch(Metrics()), "metrics and traces": Watch(Metrics(), tracing())}
        batch = Watch(Metrics())
        call = Call(METHOD, streaming=False, noted=lambda call, outcome: None)
        cost: dict[str, list[float]] = {name: [] for name in watches}
        whole: dict[str, list[float]] = {name: [] for name in watches}
        per_batch = []
        for _ in range(rounds):
            for name, watch in watches.items():
                cost[name].append(await handlers_cost(answer, watch, calls))
                whole[name].append(await served(runtime, settings, watch, texts))
            started = time.perf_counter()
            for _ in range(calls):
                batch.batch([call], scored)
            per_batch.append(1e6 * (time.perf_counter() - started) / calls)
    p50 = median(whole["none"])
    bare = median(cost["none"])
    print(f"{rounds} rounds in turns, {calls} handler calls and {len(texts)} served calls each; medians")
    print(f"one batch's metrics take {median(per_batch):.1f} us")
    print("| watch | us a call | share of the p50 of Classify | p50 of Classify, ms |")
    print("|---|---|---|---|")
    for name in watches:
        added = median(cost[name]) - bare + (median(per_batch) if name != "none" else 0.0)
        print(f"| {name} | {added:.1f} | {added / 10 / p50:.2f} % | {median(whole[name]):.2f} |")


def main() -> None:
    """Parse and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=2_000)
    given = parser.parse_args()
    configure_logging(level="info")
    asyncio.run(measure(given.rounds, given.calls))


if __name__ == "__main__":
    main()
