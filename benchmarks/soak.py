"""Mixed load for a long time, and whether the server holds more at its end than at its beginning.

Run:  .venv/bin/python benchmarks/soak.py --minutes 30

Single prompts, batches, streams (some of them abandoned), cancelled calls, calls with short deadlines, bad requests, gzip,
example writes, connections that come and go. The server's resident memory, descriptors, asyncio tasks and threads are taken
at rest after the first tenth of the time and at rest at the end; the exit code is 1 when they grew. The same examples are written
again and again, because new ones would rightly take memory. Caches and the sample of traffic rightly fill up, too, and are
made so small that they are full at the first look; --usual leaves them as they are by default.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
from processes import resident_mib, served
from stillwatch.v1 import classifier_pb2, examples_pb2
from texts import rough_texts

_CLASSIFIER = "/stillwatch.v1.ClassifierService/"
_ADD = "/stillwatch.v1.ExampleService/AddExamples"
_LOOK_SECONDS = 0.25
_REST_SECONDS = 2.0
_WARM_SECONDS = 8.0
_SOON_FULL = {"verdict_cache_entries": 64, "window_cache_entries": 64, "reservoir_prompts": 20}
_EXAMPLES = 20
_WEIGHTS = {
    "single": 40,
    "gzip": 10,
    "batch": 8,
    "stream": 4,
    "abandoned stream": 4,
    "cancelled": 10,
    "short deadline": 8,
    "bad": 12,
    "example": 4,
}


@dataclass(frozen=True)
class Held:
    """What the server's process holds.

    Attributes:
        at: Seconds since the soak's beginning.
        resident: MiB.
        descriptors: Open files and sockets.
        tasks: asyncio tasks, the one that looks not counted.
        threads: Threads.
    """

    at: float
    resident: float
    descriptors: int
    tasks: int
    threads: int


_MARGIN = {"descriptors": 2, "tasks": 1, "threads": 4}
"""What may come by chance: one connection more, a thread pool that was not yet full."""


def grown(before: Held, after: Held, margin_mib: float) -> list[str]:
    """What the server holds more of than chance would have it.

    Args:
        before: At rest, after the warm-up.
        after: At rest, at the end.
        margin_mib: How much memory may come by chance.

    Returns:
        The names of what grew.
    """
    margins = _MARGIN | {"resident": margin_mib}
    return [name for name, margin in margins.items() if getattr(after, name) > getattr(before, name) + margin]


def main() -> None:
    """Soak, print a table, and exit with 1 when something grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--margin-mib", type=float, default=24, help="memory that is not called growth")
    parser.add_argument("--usual", action="store_true", help="with caches and sample of their usual size")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(_serve(given.serve))
        return
    with tempfile.TemporaryDirectory() as folder:
        looks = Path(folder) / "held.jsonl"
        command = [sys.executable, __file__, "--serve", str(looks)]
        with served(command=command, settings={} if given.usual else _SOON_FULL) as server:
            samples, counts = asyncio.run(_soak(server.address, looks, 60 * given.minutes, given.callers))
    before, after = samples[0], samples[-1]
    print("| minute | resident, MiB | descriptors | tasks | threads |\n|---|---|---|---|---|")
    for held in samples:
        rest = " (at rest)" if held in (before, after) else ""
        print(
            f"| {held.at / 60:.1f}{rest} | {held.resident:.0f} | {held.descriptors} | {held.tasks} | {held.threads} |"
        )
    outcomes = sorted({outcome for _, outcome in counts})
    print("\n| call | " + " | ".join(outcomes) + " |")
    print("|---" * (len(outcomes) + 1) + "|")
    for kind in _WEIGHTS:
        print(f"| {kind} | " + " | ".join(str(counts[kind, outcome]) for outcome in outcomes) + " |")
    wrong = sum(number for (_, outcome), number in counts.items() if outcome in ("INTERNAL", "UNKNOWN"))
    failed = grown(before, after, given.margin_mib)
    print(f"\ngrown: {', '.join(failed) or 'nothing'}; answers INTERNAL or UNKNOWN: {wrong}")
    sys.exit(1 if failed or wrong else 0)


async def _serve(looks: Path) -> None:
    """The server itself, and beside it a task that writes down what the process holds."""
    from classifier.config import Settings
    from classifier.serve.log import configure_logging
    from classifier.serve.server import serve

    async def look() -> None:
        began = time.monotonic()
        with looks.open("a") as file:
            while True:
                held = Held(
                    time.monotonic() - began,
                    resident_mib(os.getpid()),
                    len(os.listdir("/proc/self/fd")),  # noqa: PTH208  # the descriptor of the look itself is in both
                    len(asyncio.all_tasks()) - 1,
                    _threads(),
                )
                file.write(json.dumps(asdict(held)) + "\n")
                file.flush()
                await asyncio.sleep(_LOOK_SECONDS)

    configure_logging()
    looking = asyncio.create_task(look())
    await serve(Settings(), lambda address: print(f"stillwatch is serving on {address}", file=sys.stderr, flush=True))
    looking.cancel()
    with suppress(asyncio.CancelledError):
        await looking


def _threads() -> int:
    """All threads, those of libraries as well."""
    return len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else threading.active_count()  # noqa: PTH112, PTH208


async def _soak(address: str, looks: Path, seconds: float, callers: int) -> tuple[list[Held], Counter[tuple[str, str]]]:
    counts: Counter[tuple[str, str]] = Counter()
    await _load(address, max(_WARM_SECONDS, 0.1 * seconds), callers, Counter())
    samples = [await _at_rest(looks)]
    for part in range(8):
        await _load(address, 0.9 * seconds / 8, callers, counts, seed=part)
        samples.append(_last(looks))
    samples.append(await _at_rest(looks))
    return samples, counts


async def _at_rest(looks: Path) -> Held:
    await asyncio.sleep(_REST_SECONDS)
    return _last(looks)


def _last(looks: Path) -> Held:
    lines = looks.read_text().splitlines()
    return Held(**json.loads(lines[-1]))


async def _load(address: str, seconds: float, callers: int, counts: Counter[tuple[str, str]], seed: int = 0) -> None:
    end = time.monotonic() + seconds
    async with asyncio.TaskGroup() as group:
        for number in range(callers):
            group.create_task(_caller(address, end, counts, random.Random(1_000 * seed + number)))  # noqa: S311


async def _caller(address: str, end: float, counts: Counter[tuple[str, str]], chance: random.Random) -> None:
    """One caller, who opens a new connection now and then."""
    texts = rough_texts(200, seed=chance.randrange(2**31))
    kinds, weights = list(_WEIGHTS), list(_WEIGHTS.values())
    while time.monotonic() < end:
        async with grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            for _ in range(chance.randrange(1, 60)):
                if time.monotonic() >= end:
                    break
                (kind,) = chance.choices(kinds, weights)
                outcome = await _outcome(_CALLS[kind](channel, texts, chance))
                counts[kind, outcome] += 1
                if outcome == "RESOURCE_EXHAUSTED":
                    await asyncio.sleep(0.05)


async def _outcome(call: Awaitable[None]) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise
        return "cancelled"
    return "OK"


def _text(texts: Sequence[str], chance: random.Random) -> str:
    return f"{chance.randrange(10**9)} {chance.choice(texts)}"


def _classify(channel: grpc.aio.Channel, message: bytes, **options: Any) -> Any:
    method: Any = channel.unary_unary(_CLASSIFIER + "Classify")
    return method(message, **{"timeout": 60} | options)


def _request(text: str) -> bytes:
    return classifier_pb2.ClassifyRequest(prompt=classifier_pb2.Prompt(text=text)).SerializeToString()


async def _single(channel: grpc.aio.Channel, texts: Sequence[str], chance: random.Random) -> None:
    await _classify(channel, _request(_text(texts, chance)))


async def _gzip(channel: grpc.aio.Channel, texts: Sequence[str], chance: random.Random) -> None:
    await _classify(channel, _request(_text(texts, chance)), compression=grpc.Compression.Gzip)


async def _cancelled(channel: grpc.aio.Channel, texts: Sequence[str], chance: random.Random) -> None:
    call = _classify(channel, _request(_text(texts, chance)))
    await asyncio.sleep(chance.random() * 0.05)
    call.cancel()
    await call


async def _short(channel: grpc.aio.Channel, texts: Sequence[str], chance: random.Random) -> None:
    await _classify(channel, _request(_text(texts, chance)), timeout=chance.random() * 0.1)


async def _bad(channel: grpc.aio.Channel, _texts: Sequence[str], chance: random.Random) -> None:
    long = _request("x " * 60_000)
    await _classify(
        channel, chance.choice([b"\xff\xff garbage", b"\x0a\x04\x0a\x02\xff\xfe", b"", _request(" "), long])
    )


async def _batch(channel: grpc.aio.Channel, texts: Sequence[str], chance: random.Random) -> None:
    prompts = [classifier_pb2.Prompt(text=_text(texts, chance)) for _ in range(chance.randrange(1, 33))]
    items = [classifier_pb2.BatchItem(id=str(number), prompt=prompt) for number, prompt in enumerate(prompts)]
    method: Any = channel.unary_unary(_CLASSIFIER + "BatchClassify")
    call = method(classifier_pb2.BatchClassifyRequest(items=items).SerializeToString(), timeout=60)
    if chance.random() < 0.2:
        await asyncio.sleep(0.02)
        call.cancel()
    await call


def _open_stream(channel: grpc.aio.Channel, texts: Sequence[str], chance: random.Random, count: int) -> Any:
    async def messages() -> AsyncIterator[bytes]:
        for number in range(count):
            prompt = classifier_pb2.Prompt(text=_text(texts, chance))
            yield classifier_pb2.StreamClassifyRequest(id=str(number), prompt=prompt).SerializeToString()

    method: Any = channel.stream_stream(_CLASSIFIER + "StreamClassify")
    return method(messages(), timeout=120)


async def _stream(channel: grpc.aio.Channel, texts: Sequence[str], chance: random.Random) -> None:
    async for _ in _open_stream(channel, texts, chance, chance.randrange(1, 40)):
        pass


async def _abandoned(channel: grpc.aio.Channel, texts: Sequence[str], chance: random.Random) -> None:
    call = _open_stream(channel, texts, chance, 200)
    async for _ in call:
        call.cancel()


async def _example(channel: grpc.aio.Channel, _texts: Sequence[str], chance: random.Random) -> None:
    number = chance.randrange(_EXAMPLES)
    example = examples_pb2.Example(
        text=f"a benign example of the soak, number {number}", label=examples_pb2.LABEL_BENIGN, source="soak"
    )
    request = examples_pb2.AddExamplesRequest(request_id=f"soak-{chance.randrange(10**9)}", examples=[example])
    method: Any = channel.unary_unary(_ADD)
    await method(request.SerializeToString(), timeout=60)


_Call = Callable[[grpc.aio.Channel, Sequence[str], random.Random], Awaitable[None]]
_CALLS: Mapping[str, _Call] = {
    "single": _single,
    "gzip": _gzip,
    "batch": _batch,
    "stream": _stream,
    "abandoned stream": _abandoned,
    "cancelled": _cancelled,
    "short deadline": _short,
    "bad": _bad,
    "example": _example,
}


if __name__ == "__main__":
    main()
