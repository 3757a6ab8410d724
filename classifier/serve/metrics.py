"""Prometheus metrics: every family of the service, its registry and the HTTP endpoint. docs/observability.md lists them."""

import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from classifier.errors import InvalidSetting
from classifier.scorer import Scorer
from classifier.serve.batcher import Answer, MicroBatcher
from classifier.serve.scoring import Part
from classifier.serve.status import STATUS
from classifier.verdict import Decision, Scored
from index.example import Label

RPC_SECONDS = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0)
STAGE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
PROBABILITIES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
BATCH_PROMPTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
BATCH_TOKENS = (16, 64, 256, 512, 1_024, 2_048, 4_096, 8_192, 16_384)
STAGES = ("queue", "tokenise", "encode", "search", "classify")
OTHER = "OTHER"
_REASONS = frozenset(reason for _, reason in STATUS.values())
_ABSTENTIONS = frozenset(("UNSUPPORTED_LANGUAGE", "UNFAMILIAR_TEXT"))
_MOST_CONNECTIONS = 8
_SECONDS_OF_SILENCE = 5


class Metrics:
    """All families on a registry of their own; safe to use from any thread."""

    def __init__(self) -> None:
        """Make the families, each label value that is known from the start at zero."""
        self.registry = CollectorRegistry()
        where: dict[str, Any] = {"namespace": "stillwatch", "registry": self.registry}
        self._rpcs = Counter("rpcs", "RPCs answered, by method and status code.", ("method", "code"), **where)
        self._rpc_seconds = Histogram(
            "rpc_duration_seconds",
            "Seconds from an RPC's arrival to its answer, by method and status code.",
            ("method", "code"),
            buckets=RPC_SECONDS,
            **where,
        )
        self._in_flight = Gauge("rpcs_in_flight", "RPCs under way, by method.", ("method",), **where)
        self._stages = Histogram(
            "stage_duration_seconds",
            "Seconds in a stage: queue for each prompt, the others for each batch.",
            ("stage",),
            buckets=STAGE_SECONDS,
            **where,
        )
        self._batch_prompts = Histogram("batch_prompts", "Prompts of a batch.", buckets=BATCH_PROMPTS, **where)
        self._batch_tokens = Histogram("batch_tokens", "Tokens of a batch.", buckets=BATCH_TOKENS, **where)
        self._decisions = Counter("decisions", "Prompts answered, by decision.", ("decision",), **where)
        self._probability = Histogram(
            "extraction_probability",
            "Calibrated extraction probability of judged prompts.",
            buckets=PROBABILITIES,
            **where,
        )
        self._abstentions = Counter("abstentions", "Prompts not judged, by reason.", ("reason",), **where)
        self._techniques = Counter(
            "flagged_techniques", "Flagged prompts, by the technique that fits best.", ("technique",), **where
        )
        self._tokens = Counter("inspected_tokens", "Tokens of the prompts answered.", **where)
        self._kept = Counter("kept_answers", "Prompts answered without a batch, from a cache.", **where)
        self._refusals = Counter(
            "refusals", "RPCs and single prompts refused, by ErrorInfo reason.", ("reason",), **where
        )
        self._stage = {name: self._stages.labels(name) for name in STAGES}
        self._decision = {name: self._decisions.labels(name.value) for name in Decision}
        self._refusal = {reason: self._refusals.labels(reason) for reason in sorted(_REASONS | {OTHER})}
        self._abstention = {reason: self._abstentions.labels(reason) for reason in sorted(_ABSTENTIONS | {OTHER})}
        self._rpc: dict[tuple[str, str], tuple[Any, Any]] = {}
        self._flying: dict[str, Any] = {}
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def report(self, scorer: Callable[[], Scorer], batcher: MicroBatcher, *, queue_limit: int) -> None:
        """Report the state of model, examples and queue at each scrape.

        Args:
            scorer: Returns the scorer in force.
            batcher: Whose queue is reported.
            queue_limit: The most tokens that may wait.
        """
        self.registry.register(_State(scorer, batcher, queue_limit))
        for technique in scorer().model.labels.techniques:
            self._techniques.labels(technique)

    def begun(self, method: str) -> None:
        """An RPC began.

        Args:
            method: The method's name; one of the served ones.
        """
        flying = self._flying.get(method)
        if flying is None:
            flying = self._flying[method] = self._in_flight.labels(method)
        flying.inc()

    def ended(self, method: str, code: str, seconds: float) -> None:
        """An RPC ended.

        Args:
            method: As for begun.
            code: The status code's name.
            seconds: What it took.
        """
        self._flying[method].dec()
        self.handled(method, code, seconds)

    def handled(self, method: str, code: str, seconds: float) -> None:
        """Count an RPC that is over.

        Args:
            method: The method's name, of a bounded set.
            code: The status code's name.
            seconds: What it took.
        """
        pair = self._rpc.get((method, code))
        if pair is None:
            pair = (self._rpcs.labels(method, code), self._rpc_seconds.labels(method, code))
            self._rpc[method, code] = pair
        pair[0].inc()
        pair[1].observe(seconds)

    def refused(self, reason: str) -> None:
        """A call, or a prompt of a call with several, was refused.

        Args:
            reason: The ErrorInfo reason; one that nobody knows is counted as OTHER.
        """
        self._refusal.get(reason, self._refusal[OTHER]).inc()

    def answered(self, answer: Answer) -> None:
        """A prompt got its verdict."""
        verdict = answer.verdict
        self._decision[verdict.decision].inc()
        self._tokens.inc(verdict.inspected.tokens_inspected)
        if answer.batch_size:
            self._stage["queue"].observe(answer.queue / 1_000)
        else:
            self._kept.inc()
        if verdict.abstention is not None:
            self._abstention.get(verdict.abstention.code, self._abstention[OTHER]).inc()
            return
        self._probability.observe(verdict.extraction_probability)
        if verdict.decision == Decision.FLAG and verdict.techniques:
            self._techniques.labels(verdict.techniques[0].name).inc()  # the bundle's own name

    def batch(self, scored: Scored | Part) -> None:
        """A batch was scored."""
        times = scored.times
        self._stage["tokenise"].observe(times.tokenise / 1_000)
        self._stage["encode"].observe(times.encode / 1_000)
        self._stage["search"].observe(times.search / 1_000)
        self._stage["classify"].observe(times.classify / 1_000)
        self._batch_prompts.observe(len(scored.verdicts))
        self._batch_tokens.observe(sum(verdict.inspected.tokens_inspected for verdict in scored.verdicts))


class _State:
    """Reads at each scrape what is in force, so that nothing must tell it of a change."""

    def __init__(self, scorer: Callable[[], Scorer], batcher: MicroBatcher, queue_limit: int) -> None:
        self._scorer = scorer
        self._batcher = batcher
        self._queue_limit = queue_limit

    def collect(self) -> Iterable[Metric]:
        scorer = self._scorer()
        model, snapshot = scorer.model, scorer.snapshot
        info = InfoMetricFamily("stillwatch_bundle", "The bundle in force.")
        info.add_metric((), {"version": model.version})
        yield info
        yield _gauge("index_revision", "The example store's revision that is searched.", snapshot.revision)
        counts = [((label.value,), len(snapshot.side(label).examples)) for label in Label]
        yield _gauges("examples", "Examples that are searched, by label.", "label", counts)
        limits = [(("review",), model.thresholds.review), (("flag",), model.thresholds.flag)]
        yield _gauges("threshold", "Extraction probability from which a decision is taken.", "decision", limits)
        yield _gauge("queue_tokens", "Tokens, by estimate, that wait.", self._batcher.waiting_tokens)
        yield _gauge("queue_prompts", "Prompts that wait.", self._batcher.waiting_prompts)
        yield _gauge("queue_limit_tokens", "The most tokens that may wait.", self._queue_limit)


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"stillwatch_{name}", help_text, value=value)


def _gauges(name: str, help_text: str, label: str, values: Sequence[tuple[tuple[str], float]]) -> Metric:
    family = GaugeMetricFamily(f"stillwatch_{name}", help_text, labels=(label,))
    for labels, value in values:
        family.add_metric(labels, value)
    return family


class Endpoint:
    """The HTTP endpoint that Prometheus reads; on a thread of its own."""

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        """Listen and answer.

        Args:
            registry: What to show.
            host: The address to listen on.
            port: The port; 0 takes a free one.

        Raises:
            InvalidSetting: When the address cannot be listened on.
        """
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            kind = type("_Server", (_BoundedServer,), {"address_family": family})
            self._server: WSGIServer = make_server(host, port, make_wsgi_app(registry), kind, _QuietHandler)
        except OSError:
            raise InvalidSetting(
                f"cannot listen for metrics on {host}:{port}: free it, or set STILLWATCH_METRICS_HOST and _PORT"
            ) from None
        self.address = f"{host}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_SECONDS_OF_SILENCE)


class _BoundedServer(ThreadingMixIn, WSGIServer):
    """Answers a few readers at once; others are hung up on."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._free = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        super().__init__(*args, **kwargs)

    def server_bind(self) -> None:
        # WSGIServer would ask the DNS for the host's name.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a reader that hung up."""


class _QuietHandler(WSGIRequestHandler):
    timeout = _SECONDS_OF_SILENCE

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of a scrape."""
