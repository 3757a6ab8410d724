"""What is seen of a running server: its metrics, its access log, its switches."""

import asyncio
import http.client
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families
from serving import BUNDLES, Server, running_server
from stillwatch.v1 import classifier_pb2, classifier_pb2_grpc, examples_pb2

from classifier.client import Client
from classifier.errors import InvalidSetting, ServiceFailed
from classifier.runtime import Runtime
from classifier.serve.batcher import Answer, MicroBatcher
from classifier.serve.calls import Call, current_call, note
from classifier.serve.metrics import Endpoint, Metrics
from classifier.serve.server import _WARM_BATCHES, _WARM_PROMPTS
from classifier.serve.warm import WARM_UP
from classifier.serve.watch import Watch

HARVEST = "Come up with 25 diverse task instructions with inputs and outputs. Return them as JSON lines, no commentary."
ORDINARY = "My train was cancelled this morning, how do I ask for my money back?"
FOREIGN = "Ik wil graag weten hoe laat de bakker morgenochtend opengaat en of hij ook op zondag werkt, weet jij dat?"
CLASSIFY = "/stillwatch.v1.ClassifierService/Classify"
MARKER = "zebra-marker-4711"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def endpoint_of(server: Server) -> str:
    """The metrics endpoint that the server logged at its start."""
    (line,) = [line for line in server.startup.splitlines() if '"serving"' in line]
    return str(json.loads(line)["metrics"])


def read(address: str, path: str = "/metrics") -> str:
    connection = http.client.HTTPConnection(address, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.status == 200
    text = answer.read().decode()
    connection.close()
    return text


def samples(text: str) -> Samples:
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(found: Samples, name: str, **labels: str) -> float:
    return found[f"stillwatch_{name}", frozenset(labels.items())]


def calls_in(log: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == "call"]


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """A server that answered and refused a known set of calls, and its metrics."""
    home = tmp_path_factory.mktemp("watch") / "home"
    with running_server(home, metrics_port=0, log_level="debug", channelz=True, max_prompt_chars=5_000) as server:
        with Client(server.address) as client:
            for text in (HARVEST, HARVEST, ORDINARY, FOREIGN):
                client.classify(text)
            client.classify_batch([HARVEST, "", ORDINARY, b"{", MARKER])
            assert len(list(client.classify_stream([("a", ORDINARY), ("b", ""), ("", ORDINARY)]))) == 3
            for bad in ("", MARKER * 1_000):
                with pytest.raises(ServiceFailed):
                    client.classify(bad)
            with pytest.raises(ServiceFailed):
                client.get_example(MARKER)
            bad_example = examples_pb2.Example(text=MARKER, label=examples_pb2.LABEL_EXTRACTION, technique=MARKER)
            with pytest.raises(ServiceFailed):
                client.add_examples([bad_example], request_id=MARKER)
        with grpc.insecure_channel(server.address) as channel:
            call: Any = channel.unary_unary(f"/stillwatch.v1.{MARKER}/{MARKER}")
            with pytest.raises(grpc.RpcError):
                call(b"", timeout=10)
            stub: Any = classifier_pb2_grpc.ClassifierServiceStub(channel)
            request = classifier_pb2.ClassifyRequest(prompt=classifier_pb2.Prompt(text=ORDINARY))
            parent = f"00-{'ab' * 16}-{'cd' * 8}-01"
            stub.Classify(request, timeout=10, metadata=(("traceparent", parent), ("x-request-id", MARKER)))
        text = read(endpoint_of(server))
        yield server, text


def test_calls_are_counted_and_timed_by_method_and_code(used: tuple[Server, str]) -> None:
    found = samples(used[1])
    assert value(found, "rpcs_total", method=CLASSIFY, code="OK") == 5
    assert value(found, "rpcs_total", method=CLASSIFY, code="INVALID_ARGUMENT") == 2
    assert value(found, "rpcs_total", method="unknown", code="UNIMPLEMENTED") == 1
    assert value(found, "rpcs_total", method="/stillwatch.v1.ClassifierService/StreamClassify", code="OK") == 1
    assert value(found, "rpcs_total", method="/stillwatch.v1.ExampleService/GetExample", code="NOT_FOUND") == 1
    assert value(found, "rpc_duration_seconds_count", method=CLASSIFY, code="OK") == 5
    assert value(found, "rpc_duration_seconds_sum", method=CLASSIFY, code="OK") > 0
    assert value(found, "rpcs_in_flight", method=CLASSIFY) == 0


def test_decisions_scores_and_techniques_are_counted(used: tuple[Server, str], runtime: Runtime) -> None:
    found = samples(used[1])
    verdicts = runtime.scorer.score([HARVEST] * 3 + [ORDINARY] * 4 + [FOREIGN, MARKER]).verdicts
    for decision in ("allow", "review", "flag", "abstain"):
        expected = sum(verdict.decision == decision for verdict in verdicts)
        assert value(found, "decisions_total", decision=decision) == expected
    judged = [verdict.extraction_probability for verdict in verdicts if verdict.abstention is None]
    assert value(found, "extraction_probability_count") == len(judged)
    assert value(found, "extraction_probability_sum") == pytest.approx(sum(judged), abs=0.01)
    technique = verdicts[0].techniques[0].name
    assert value(found, "flagged_techniques_total", technique=technique) >= 3
    assert sum(number for (name, _), number in found.items() if name == "stillwatch_flagged_techniques_total") == sum(
        verdict.decision == "flag" for verdict in verdicts
    )
    reasons = [verdict.abstention.code for verdict in verdicts if verdict.abstention is not None]
    assert reasons
    assert value(found, "abstentions_total", reason=reasons[0]) == reasons.count(reasons[0])
    tokens = sum(verdict.inspected.tokens_inspected for verdict in verdicts)
    assert value(found, "inspected_tokens_total") == tokens


def test_refusals_are_counted_by_reason_once_each(used: tuple[Server, str]) -> None:
    found = samples(used[1])
    expected = {
        "EMPTY_PROMPT": 3,  # a call, an item, a message of the stream
        "PROMPT_TOO_LONG": 1,
        "UNKNOWN_CONVERSATION": 1,
        "INVALID_REQUEST": 1,  # a message of the stream without id
        "EXAMPLE_NOT_FOUND": 1,
        "INVALID_EXAMPLE": 1,
        "QUEUE_FULL": 0,
        "INTERNAL": 0,
        "OTHER": 0,
    }
    assert {reason: value(found, "refusals_total", reason=reason) for reason in expected} == expected


def test_stages_batches_and_queue_are_measured(used: tuple[Server, str]) -> None:
    found = samples(used[1])
    answered = sum(number for (name, _), number in found.items() if name == "stillwatch_decisions_total")
    scored = answered - value(found, "kept_answers_total")
    assert value(found, "stage_duration_seconds_count", stage="queue") == scored
    batches = value(found, "batch_prompts_count")
    assert value(found, "batch_prompts_sum") == scored + len(WARM_UP) + _WARM_BATCHES * _WARM_PROMPTS
    for stage in ("tokenise", "encode", "search", "classify"):
        assert value(found, "stage_duration_seconds_count", stage=stage) == batches
        assert value(found, "stage_duration_seconds_sum", stage=stage) > 0
    assert value(found, "batch_tokens_count") == batches
    assert value(found, "queue_tokens") == 0
    assert value(found, "queue_prompts") == 0
    assert value(found, "queue_limit_tokens") == 262_144


def test_model_examples_and_process_are_described(used: tuple[Server, str], runtime: Runtime) -> None:
    found = samples(used[1])
    assert value(found, "bundle_info", version=runtime.scorer.model.version) == 1
    snapshot = runtime.scorer.snapshot
    assert value(found, "index_revision") == snapshot.revision
    assert value(found, "examples", label="extraction") == len(snapshot.extraction.examples)
    assert value(found, "examples", label="benign") == len(snapshot.benign.examples)
    assert value(found, "threshold", decision="flag") == runtime.scorer.model.thresholds.flag
    assert found["process_resident_memory_bytes", frozenset()] > 10 * 2**20


def test_no_label_and_no_log_line_holds_what_a_caller_chose(used: tuple[Server, str]) -> None:
    assert MARKER not in used[1]


def test_a_new_example_moves_the_metrics(tmp_path: Path) -> None:
    with running_server(tmp_path / "home", metrics_port=0) as server, Client(server.address) as client:
        before = samples(read(endpoint_of(server)))
        example = examples_pb2.Example(text=MARKER, label=examples_pb2.LABEL_BENIGN, source="unit-test")
        client.add_examples([example])
        after = samples(read(endpoint_of(server)))
    assert value(after, "index_revision") == value(before, "index_revision") + 1
    assert value(after, "examples", label="benign") == value(before, "examples", label="benign") + 1


def test_the_access_log_has_a_line_for_each_call_and_no_text(used: tuple[Server, str]) -> None:
    server, _ = used
    with grpc.insecure_channel(server.address) as channel:
        stub: Any = channelz_pb2_grpc.ChannelzStub(channel)
        assert stub.GetServers(channelz_pb2.GetServersRequest(start_server_id=0), timeout=5).server
    assert server.stop() == 0
    lines = calls_in(server.log)
    by_code = [(line["method"].split("/")[-1], line["code"]) for line in lines]
    assert by_code.count(("Classify", "OK")) == 5
    assert by_code.count(("Classify", "INVALID_ARGUMENT")) == 2
    assert ("StreamClassify", "OK") in by_code
    first, last = lines[0], lines[-1]
    assert (first["decision"], first["prompts"], first["level"]) == ("flag", 1, "debug")
    assert first["tokens"] > 10
    assert first["ms"] > 0
    assert last["trace_id"] == "ab" * 16
    refused = next(line for line in lines if line["code"] == "INVALID_ARGUMENT")
    assert (refused["reason"], refused["level"]) == ("EMPTY_PROMPT", "info")
    assert next(line for line in lines if line["method"].endswith("/StreamClassify"))["refused"] == 2
    assert MARKER not in server.log


def test_a_quiet_server_has_neither_endpoint_nor_lines_nor_descriptions(tmp_path: Path) -> None:
    with running_server(tmp_path / "home", log_level="error", reflection=False) as server:
        assert server.startup.splitlines() == [f"stillwatch is serving on {server.address}"]
        with Client(server.address) as client, pytest.raises(ServiceFailed):
            client.classify("")
        with grpc.insecure_channel(server.address) as channel:
            request = reflection_pb2.ServerReflectionRequest(list_services="")
            reflected: Any = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]))
            channelled: Any = channelz_pb2_grpc.ChannelzStub(channel)
            with pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"):
                list(reflected)
            with pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"):
                channelled.GetServers(channelz_pb2.GetServersRequest(), timeout=5)
        assert server.stop() == 0
        assert server.log == ""


def test_logs_for_people_are_lines_without_json(tmp_path: Path) -> None:
    with running_server(tmp_path / "home", log_format="console") as server:
        assert "serving" in server.startup
        assert "{" not in server.startup
        assert server.stop() == 0
        assert re.search(r"stopped", server.log)


class BrokenMetrics(Metrics):
    """Raises wherever it is told something."""

    def begun(self, method: str) -> None:
        raise RuntimeError(MARKER)

    def ended(self, method: str, code: str, seconds: float) -> None:
        raise RuntimeError(MARKER)

    def answered(self, answer: Answer) -> None:
        raise RuntimeError(MARKER)

    def batch(self, scored: Any) -> None:
        raise RuntimeError(MARKER)


async def test_a_fault_of_the_watch_harms_no_answer(runtime: Runtime, capsys: pytest.CaptureFixture[str]) -> None:
    watch = Watch(BrokenMetrics())
    batcher = MicroBatcher(lambda: runtime.scorer, batch_tokens=4_096, queue_tokens=4_096, on_batch=watch.batch)

    async def behaviour(message: str, context: Any) -> Any:
        call = current_call()
        assert call is not None
        (outcome,) = await batcher.submit([message])
        note(outcome)
        return outcome

    class Context:
        def code(self) -> None:
            return None

    scoring = asyncio.create_task(batcher.run())
    answer = await watch._watched(CLASSIFY, (), behaviour, streaming=False)(HARVEST, Context())
    batcher.close()
    await scoring
    assert isinstance(answer, Answer)
    assert current_call() is None
    assert MARKER not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("left", "code"), [(None, "CANCELLED"), (3.0, "CANCELLED"), (0.0, "DEADLINE_EXCEEDED"), (-1.0, "DEADLINE_EXCEEDED")]
)
async def test_a_call_that_was_cut_off_is_counted_by_what_cut_it(left: float | None, code: str) -> None:
    class Context:
        def time_remaining(self) -> float | None:
            return left

    async def behaviour(message: str, context: Any) -> Any:
        raise asyncio.CancelledError

    metrics = Metrics()
    with pytest.raises(asyncio.CancelledError):
        await Watch(metrics)._watched(CLASSIFY, (), behaviour, streaming=False)("", Context())
    assert metrics.registry.get_sample_value("stillwatch_rpcs_total", {"method": CLASSIFY, "code": code}) == 1
    assert metrics.registry.get_sample_value("stillwatch_rpcs_in_flight", {"method": CLASSIFY}) == 0


def test_a_taken_metrics_port_ends_the_start_with_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        (tmp_path / "bundles").symlink_to(BUNDLES)
        variables = {"STILLWATCH_HOME": str(tmp_path), "STILLWATCH_PORT": "0"}
        variables["STILLWATCH_METRICS_PORT"] = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "classifier.cli", "serve"]
        environment = {**os.environ, **variables}
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot listen for metrics on 127.0.0.1:")
    assert len(done.stderr.splitlines()) == 1


def test_an_outcome_outside_of_a_call_is_nobodys() -> None:
    note(RuntimeError(MARKER))
    assert current_call() is None


def test_a_call_sums_up_what_it_is_told(runtime: Runtime) -> None:
    told: list[Any] = []
    call = Call(CLASSIFY, streaming=False, noted=lambda call, outcome: told.append(outcome))
    call.note(ValueError(MARKER))
    assert (call.prompts, call.refused, len(told)) == (0, 1, 1)


def test_an_answer_from_a_cache_is_a_decision_but_waited_in_no_queue(runtime: Runtime) -> None:
    scored = runtime.scorer.score([HARVEST])
    metrics = Metrics()
    metrics.answered(Answer(scored.verdicts[0], scored.provenance, scored.times, 0.0, 0))
    value_of = metrics.registry.get_sample_value
    assert value_of("stillwatch_kept_answers_total") == 1
    assert value_of("stillwatch_decisions_total", {"decision": "flag"}) == 1
    assert value_of("stillwatch_stage_duration_seconds_count", {"stage": "queue"}) == 0


def test_an_unknown_reason_is_counted_as_other() -> None:
    metrics = Metrics()
    metrics.refused(MARKER)
    assert metrics.registry.get_sample_value("stillwatch_refusals_total", {"reason": "OTHER"}) == 1
    assert metrics.registry.get_sample_value("stillwatch_refusals_total", {"reason": MARKER}) is None


def test_the_endpoint_hangs_up_on_too_many_readers_and_serves_again_when_they_leave() -> None:
    endpoint = Endpoint(Metrics().registry, "127.0.0.1", 0)
    host, _, port = endpoint.address.rpartition(":")
    silent = [socket.create_connection((host, int(port)), timeout=10) for _ in range(8)]
    try:
        for held in silent:
            held.sendall(b"GET /metrics HTTP/1.1\r\n")  # and never ends its request
        with socket.create_connection((host, int(port)), timeout=10) as ninth:
            ninth.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            try:
                refused = ninth.recv(1) == b""
            except ConnectionResetError:
                refused = True
            assert refused
    finally:
        for held in silent:
            held.close()
    for _ in range(100):
        try:
            assert "stillwatch_refusals_total" in read(endpoint.address)
            break
        except (http.client.HTTPException, ConnectionError):
            continue
    else:
        pytest.fail("the endpoint stayed busy")
    endpoint.close()
    with pytest.raises(ConnectionRefusedError):
        read(endpoint.address)


def test_a_taken_port_for_metrics_is_an_error_that_names_the_setting() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InvalidSetting, match="STILLWATCH_METRICS_HOST"):
            Endpoint(Metrics().registry, "127.0.0.1", taken.getsockname()[1])
