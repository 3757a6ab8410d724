"""Joins a Ray cluster, or starts one on this machine alone: without dashboard or statistics, and on loopback only."""

import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from classifier.errors import InvalidSetting, MissingExtra, RunRefused

_STORE_BYTES = 256 * 2**20
"""Of shared memory for what Ray itself passes on, which is little."""
_CONNECT_SECONDS = 5.0
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # it prints on standard error, also of what it mends by itself
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_NUM_REDIS_GET_RETRIES": "3",  # of joining; else it takes ten minutes to give up
}
_ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_worker_niceness": "0"}
"""Ray's only way to stay on loopback, off by default where firewalls ask about open ports; and no niceness but the command's."""


@contextmanager
def connected(address: str | None, workers: int | None, job_bytes: int) -> Iterator[int]:
    """Be part of a cluster.

    Args:
        address: Of one that runs, such as "10.0.0.5:6379" or "auto"; None starts one here.
        workers: How many workers are wanted; None: one for each core.
        job_bytes: The size of what every worker gets.

    Yields:
        The number of workers.

    Raises:
        MissingExtra: When Ray is not installed.
        InvalidSetting: When the address is of a kind that cannot work, or the cluster has too few cores.
        RunRefused: When there is no such cluster, or it does not take this machine.
    """
    if address is not None and "://" in address:
        raise InvalidSetting(
            "a Ray client's address cannot be used, because this command takes over the parts: run it on a machine of the "
            "cluster, for instance by  ray job submit, with --ray-address auto"
        )
    own = _QUIET if address else {**_QUIET, **_ALONE, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    import ray

    try:
        with _signals_kept():
            _start(ray, address, workers, job_bytes)
        cores = int(ray.cluster_resources().get("CPU", 0))
        if (workers or 1) > cores:
            raise InvalidSetting(
                f"the cluster has {cores} cores for {workers or 1} workers: ask for fewer by --workers"
            )
        yield workers or cores
    finally:
        ray.shutdown()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def require_ray() -> None:
    """See that Ray Data is there, without the seconds that its import takes.

    Raises:
        MissingExtra: When it is not.
    """
    for name in ("ray", "pandas"):
        if find_spec(name) is None:
            raise MissingExtra(name, "ray")


def _start(ray: Any, address: str | None, workers: int | None, job_bytes: int) -> None:
    quiet = {"log_to_driver": False, "logging_level": "error"}
    if address is None:
        store = max(_STORE_BYTES, 2 * job_bytes)
        ray.init(
            address="local",
            num_cpus=workers or len(os.sched_getaffinity(0)),
            include_dashboard=False,
            object_store_memory=store,
            **quiet,
        )
        return
    try:
        host, _, port = address.rpartition(":")
        if host:  # Ray itself tries for long
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
        ray.init(address=address, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        raise RunRefused(
            f"there is no Ray cluster to join at {address} ({type(error).__name__}): check address and token, that this "
            "machine is part of it, and that it has this version of Python and Ray"
        ) from None


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray puts a handler of its own on SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
