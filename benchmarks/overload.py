"""Loads a server beyond its capacity and tells what becomes of who is accepted, who is refused, and the server.

Run:  .venv/bin/python benchmarks/overload.py [--plot docs/overload.png]

The capacity is measured first, by a closed loop of callers; then prompts come at random times (open loop) at multiples of
it, from other processes. Latencies of accepted calls count from the moment at which they were due, those of refused calls
from their sending. The server is a process of its own that stands back behind the callers (--nice), as if they were
on other machines.
"""

import argparse
import asyncio
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from load import CLASSIFY
from numpy.typing import NDArray
from processes import NO_VERDICTS_KEPT, Served, served
from stillwatch.v1 import classifier_pb2
from texts import rough_texts

_REFUSED: int = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
_PROBES = 9
_GIVE_UP = 20.0
_RECOVERED = 1.5
_numbers = count(1)


@dataclass(frozen=True)
class Calls:
    """What became of calls: seconds each, and the status code's number.

    Attributes:
        latency: From the moment a call was due until its end.
        lag: From the moment a call was due until it was sent.
        code: 0 for an answer, 8 for a refusal.
    """

    latency: NDArray[np.float64]
    lag: NDArray[np.float64]
    code: NDArray[np.int64]

    @property
    def accepted(self) -> NDArray[np.float64]:
        """Seconds of the answered calls."""
        answered: NDArray[np.float64] = self.latency[self.code == 0]
        return answered

    @property
    def refused(self) -> NDArray[np.float64]:
        """Seconds from sending to refusal."""
        refused: NDArray[np.float64] = (self.latency - self.lag)[self.code == _REFUSED]
        return refused


@dataclass(frozen=True)
class Level:
    """One multiple of the capacity."""

    load: float
    offered: float
    calls: Calls
    seconds: float
    resident: float
    recovery: float


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15, help="of each level")
    parser.add_argument("--levels", default="0.5,1,2,4", help="multiples of the capacity; 1 and 4 are judged")
    parser.add_argument("--callers", type=int, default=32, help="of the closed loop that measures the capacity")
    parser.add_argument("--processes", type=int, default=1, help="that call in the open loop")
    parser.add_argument("--nice", type=int, default=5, help="how much the server stands back behind the callers")
    parser.add_argument("--plot", type=Path, help="where to put the curve (PNG)")
    given = parser.parse_args()
    levels = [float(level) for level in given.levels.split(",")]
    context = multiprocessing.get_context("spawn")
    with (
        served(settings=NO_VERDICTS_KEPT, nice=given.nice) as server,
        ProcessPoolExecutor(given.processes, context) as pool,
    ):
        address = server.address
        closed = pool.submit(_closed, address, given.callers, given.seconds)
        capacity = closed.result()
        if not capacity:
            raise SystemExit("nothing was answered: give it --seconds, or a machine with less to do")
        time.sleep(1)
        idle = float(np.median(_probe(address, lambda times: len(times) >= 60)[10:]))
        before = server.resident
        print(f"{len(os.sched_getaffinity(0))} cores, prompts of 16 to 256 tokens, 64 in the mean, no two the same;")
        print(f"capacity {capacity:.0f}/s ({given.callers} callers in a closed loop), ", end="")
        print(f"one caller on the idle server p50 {1e3 * idle:.1f} ms, resident {before:.0f} MiB\n")
        print(
            "| load | offered/s | answered/s | accepted p50 / p95 / p99, ms | refused | refused p50 / p99, ms ", end=""
        )
        print("| other errors | lag p99, ms | resident, MiB | recovery, s |\n|---|---|---|---|---|---|---|---|---|---|")
        measured = [_level(pool, given.processes, server, load, capacity, given.seconds, idle) for load in levels]
    _judge(measured, before)
    if given.plot:
        _plot(measured, given.plot)


def _level(
    pool: ProcessPoolExecutor,
    processes: int,
    server: Served,
    load: float,
    capacity: float,
    seconds: float,
    idle: float,
) -> Level:
    rate, address = load * capacity, server.address
    begin = time.monotonic() + 1.5
    parts: list[Future[Calls]] = [
        pool.submit(_open, address, rate / processes, begin, seconds, number) for number in range(processes)
    ]
    time.sleep(max(0.0, begin + seconds - time.monotonic()))
    recovery = _recovery(address, idle)
    found = [part.result() for part in parts]
    calls = Calls(*(np.concatenate([getattr(part, name) for part in found]) for name in ("latency", "lag", "code")))
    level = Level(load, rate, calls, seconds, server.resident, recovery)
    others = int(np.count_nonzero(~np.isin(calls.code, (0, _REFUSED))))
    refused = len(calls.refused) / len(calls.code)
    print(
        f"| {load:g}x | {rate:.0f} | {len(calls.accepted) / seconds:.0f} | {_percentiles(calls.accepted, 50, 95, 99)} ",
        end="",
    )
    print(f"| {refused:.1%} | {_percentiles(calls.refused, 50, 99)} | {others} ", end="")
    print(f"| {_percentiles(calls.lag, 99)} | {level.resident:.0f} | {recovery:.2f} |", flush=True)
    return level


def _percentiles(seconds: NDArray[np.float64], *percents: int) -> str:
    return " / ".join(f"{1e3 * np.percentile(seconds, percent):.1f}" if len(seconds) else "-" for percent in percents)


def _request(number: int, text: str) -> bytes:
    prompt = classifier_pb2.Prompt(text=f"{number} {text}")
    return classifier_pb2.ClassifyRequest(prompt=prompt).SerializeToString()


async def _call(classify: Any, message: bytes) -> int:
    try:
        await classify(message, timeout=60)
    except grpc.aio.AioRpcError as error:
        return int(error.code().value[0])
    return 0


def _closed(address: str, callers: int, seconds: float) -> float:
    """Answers a second."""

    async def run() -> float:
        texts, answered, number = rough_texts(2_000, seed=1), 0, 0
        async with grpc.aio.insecure_channel(address) as channel:
            classify: Any = channel.unary_unary(CLASSIFY)
            warm = time.monotonic() + 0.2 * seconds
            end = warm + seconds

            async def caller() -> None:
                nonlocal answered, number
                while time.monotonic() < end:
                    number += 1
                    code = await _call(classify, _request(number, texts[number % len(texts)]))
                    answered += code == 0 and warm <= time.monotonic() < end
                    if code:
                        await asyncio.sleep(0.05)

            await asyncio.gather(*(caller() for _ in range(callers)))
        return answered / seconds

    return asyncio.run(run())


def _open(address: str, rate: float, begin: float, seconds: float, seed: int) -> Calls:
    """Send at random times, whatever becomes of the calls before."""

    async def run() -> Calls:
        texts = rough_texts(2_000, seed=seed + 2)
        gaps = np.random.default_rng(seed).exponential(1 / rate, int(1.5 * rate * seconds) + 20)
        due = begin + np.cumsum(gaps)
        due = due[due < begin + seconds]
        latency, lag, code = np.zeros(len(due)), np.zeros(len(due)), np.zeros(len(due), np.int64)
        async with grpc.aio.insecure_channel(address) as channel:
            classify: Any = channel.unary_unary(CLASSIFY)
            await channel.channel_ready()

            async def one(number: int) -> None:
                message = _request(1_000_000 * (seed + 1) + number, texts[number % len(texts)])
                lag[number] = time.monotonic() - due[number]
                code[number] = await _call(classify, message)
                latency[number] = time.monotonic() - due[number]

            tasks = set()
            for number, moment in enumerate(due):
                if (wait := moment - time.monotonic()) > 0:
                    await asyncio.sleep(wait)
                task = asyncio.create_task(one(number))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            await asyncio.gather(*tasks)
        return Calls(latency, lag, code)

    return asyncio.run(run())


def _probe(address: str, enough: Callable[[Sequence[float]], bool]) -> list[float]:
    """Seconds of calls one after the other, until they are enough; a refused one counts as endless."""
    times: list[float] = []
    with grpc.insecure_channel(address) as channel:
        classify: Any = channel.unary_unary(CLASSIFY)
        while not enough(times):
            message = _request(
                -next(_numbers), "Could you explain how the tides work, and why there are two of them? " * 4
            )
            started = time.monotonic()
            try:
                classify(message, timeout=30)
                times.append(time.monotonic() - started)
            except grpc.RpcError:
                times.append(float("inf"))
                time.sleep(0.01)
    return times


def _recovery(address: str, idle: float) -> float:
    """Seconds until the p50 of single calls is at most 1.5 of that on an idle server."""
    began = time.monotonic()

    def recovered(times: Sequence[float]) -> bool:
        late = time.monotonic() - began > _GIVE_UP
        return late or (len(times) >= _PROBES and float(np.median(times[-_PROBES:])) <= _RECOVERED * idle)

    _probe(address, recovered)
    return time.monotonic() - began


def _judge(levels: Sequence[Level], before: float) -> None:
    by_load = {level.load: level for level in levels}
    if not {1.0, 4.0} <= set(by_load):
        return
    at_capacity, beyond = by_load[1.0], by_load[4.0]
    ratio = np.percentile(beyond.calls.accepted, 99) / np.percentile(at_capacity.calls.accepted, 99)
    refused = 1e3 * float(np.percentile(beyond.calls.refused, 99)) if len(beyond.calls.refused) else 0.0
    growth = beyond.resident - at_capacity.resident
    print("\n| at 4x capacity | measured | target |\n|---|---|---|")
    print(f"| accepted p99 over that at capacity | {ratio:.2f}x | <= 3x |")
    print(f"| refused p99 | {refused:.1f} ms | < 10 ms |")
    print(f"| resident memory over that at capacity | {growth:+.0f} MiB ({before:.0f} idle) | no growth |")
    print(f"| recovery | {beyond.recovery:.2f} s | <= 2 s |")


def _plot(levels: Sequence[Level], path: Path) -> None:
    try:
        from matplotlib import pyplot as plt
    except ImportError:
        sys.exit("--plot needs matplotlib: run  pip install 'stillwatch[evaluate]'")
    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(7, 6), layout="constrained")
    loads = [level.load for level in levels]
    for percent, style in ((50, "o-"), (99, "s-")):
        times = [1e3 * np.percentile(level.calls.accepted, percent) for level in levels]
        above.plot(loads, times, style, label=f"accepted p{percent}")
    refusing = [level for level in levels if len(level.calls.refused)]
    times = [1e3 * np.percentile(level.calls.refused, 99) for level in refusing]
    above.plot([level.load for level in refusing], times, "^--", label="refused p99")
    above.set(ylabel="latency, ms", yscale="log")
    below.plot(loads, [level.offered for level in levels], ":", label="offered")
    below.plot(loads, [len(level.calls.accepted) / level.seconds for level in levels], "o-", label="answered")
    below.set(xlabel="load, multiples of the capacity", ylabel="calls a second")
    for axes in (above, below):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=130)
    print(f"\nthe curve stands in {path}")


if __name__ == "__main__":
    main()
