"""What is under deploy/ names metrics, labels, settings, verbs and times that exist."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import typer.main
import yaml
from prometheus_client import CollectorRegistry

from classifier.cli import app
from classifier.config import Settings
from classifier.errors import DeadlineTooShort, Overloaded
from classifier.runtime import Runtime
from classifier.serve.batcher import MicroBatcher
from classifier.serve.metrics import STAGE_SECONDS, Metrics
from classifier.serve.status import reason_of

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "stillwatch.json").read_text())
RULES = yaml.safe_load((DEPLOY / "prometheus" / "stillwatch.rules.yaml").read_text())
MANIFEST = list(yaml.safe_load_all((DEPLOY / "kubernetes" / "stillwatch.yaml").read_text()))
UNIT = (DEPLOY / "systemd" / "stillwatch.service").read_text()
CONTAINER = (DEPLOY / "Containerfile").read_text()
FROM_THE_SCRAPE = {"job", "instance"}


def queries() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$__rate_interval", "5m")
    for group in RULES["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


@pytest.fixture(scope="module")
def registry(runtime: Runtime) -> CollectorRegistry:
    metrics = Metrics()
    batcher = MicroBatcher(lambda: runtime.scorer, batch_tokens=4_096, queue_tokens=4_096)
    metrics.report(lambda: runtime.scorer, batcher, queue_limit=4_096)
    metrics.begun("/a")
    metrics.ended("/a", "OK", 0.1)
    return metrics.registry


@pytest.fixture(scope="module")
def known(registry: CollectorRegistry) -> dict[str, set[str]]:
    """Every sample's name with its labels."""
    found: dict[str, set[str]] = {}
    for family in registry.collect():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def selectors(expression: Any) -> Iterator[Any]:
    """Every vector selector under an expression."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression
    for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
        child = getattr(expression, name, None)
        if child is not None:
            yield from selectors(child)
    for child in getattr(expression, "args", None) or ():
        yield from selectors(child)


def groupings(text: str) -> set[str]:
    return {label.strip() for found in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", text) for label in found.split(",")}


QUERIES = sorted(set(queries()))


@pytest.mark.parametrize(("title", "query"), QUERIES)
def test_every_query_parses_and_names_metrics_and_labels_that_exist(
    title: str, query: str, known: dict[str, set[str]]
) -> None:
    found = list(selectors(promql_parser.parse(query)))
    assert {selector.name for selector in found} == set(re.findall(r"\b(?:stillwatch|process)_\w+", query)), title
    labels: set[str] = set(FROM_THE_SCRAPE)
    for selector in found:
        assert selector.name in known, f"{title}: no metric is called {selector.name}"
        own = known[selector.name] | FROM_THE_SCRAPE
        labels |= own
        for matcher in selector.matchers.matchers:
            assert matcher.name in own, f"{title}: {selector.name} has no label {matcher.name}"
    assert groupings(query) <= labels, f"{title}: groups by a label that no metric in it has"


def test_a_query_of_a_metric_that_is_gone_would_be_found(known: dict[str, set[str]]) -> None:
    with pytest.raises(AssertionError, match="no metric is called stillwatch_gone_total"):
        test_every_query_parses_and_names_metrics_and_labels_that_exist("t", "rate(stillwatch_gone_total[5m])", known)
    with pytest.raises(AssertionError, match="has no label colour"):
        test_every_query_parses_and_names_metrics_and_labels_that_exist("t", 'stillwatch_examples{colour="red"}', known)


def test_every_family_of_the_service_is_on_the_dashboard_or_in_an_alert(registry: CollectorRegistry) -> None:
    text = "\n".join(query for _, query in QUERIES)
    families = {family.name for family in registry.collect() if family.name.startswith("stillwatch_")}
    unseen = {name for name in families if name not in text}
    assert unseen == {"stillwatch_threshold"}, "thresholds are for looking up"


def test_every_metric_is_documented_with_its_labels(registry: CollectorRegistry) -> None:
    text = (ROOT / "docs" / "observability.md").read_text()
    rows = {name: labels.strip() for name, labels in re.findall(r"^\| `(\w+)` \|([^|]*)\|", text, re.MULTILINE)}
    expected = {}
    for family in registry.collect():
        if family.name.startswith("stillwatch_"):
            suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
            labels = sorted({name for sample in family.samples for name in sample.labels} - {"le"})
            expected[family.name + suffix] = ", ".join(f"`{name}`" for name in labels)
    documented = {name: ", ".join(sorted(labels.split(", "))) for name, labels in rows.items() if "stillwatch_" in name}
    assert documented == expected


def test_panels_do_not_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_every_alert_says_what_it_means_and_what_to_do() -> None:
    rules = [rule for group in RULES["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 8
    for rule in rules:
        assert set(rule["annotations"]) == {"summary", "description"}
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}


def selectors_of(alert: str) -> list[Any]:
    ((_, query),) = [(title, query) for title, query in QUERIES if title == alert]
    return list(selectors(promql_parser.parse(query)))


def test_the_alert_on_refused_load_counts_every_refusal_that_overload_brings() -> None:
    (reasons,) = {
        matcher.value
        for selector in selectors_of("StillwatchRefusesLoad")
        if selector.name == "stillwatch_refusals_total"
        for matcher in selector.matchers.matchers
    }
    assert set(reasons.split("|")) == {reason_of(error("")) for error in (Overloaded, DeadlineTooShort)}


def test_the_alert_on_the_queue_looks_at_seconds_and_fires_before_prompts_are_refused() -> None:
    (selector,) = selectors_of("StillwatchQueueLong")
    assert selector.name == "stillwatch_stage_duration_seconds_bucket"
    assert [(matcher.name, matcher.value) for matcher in selector.matchers.matchers] == [("stage", "queue")]
    ((_, query),) = [(title, query) for title, query in QUERIES if title == "StillwatchQueueLong"]
    threshold = float(query.rpartition(">")[2])
    assert threshold in STAGE_SECONDS, "a quantile between two bounds is a guess"
    assert threshold < Settings().queue_seconds


@pytest.mark.parametrize("file", sorted(path for path in DEPLOY.rglob("*") if path.is_file()), ids=lambda p: p.name)
def test_every_setting_that_is_named_exists(file: Path) -> None:
    named = set(re.findall(r"STILLWATCH_[A-Z]\w*", file.read_text()))
    assert named <= {f"STILLWATCH_{name.upper()}" for name in Settings.model_fields}


@pytest.mark.parametrize("name", ["kubernetes", "systemd", "container"])
def test_the_set_values_are_valid(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "kubernetes":
        given = {pair["name"]: pair["value"] for pair in container()["env"]}
    else:
        text = UNIT if name == "systemd" else CONTAINER
        given = dict(re.findall(r"(STILLWATCH_\w+)=(\S+)", text))
    assert given
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)
    settings = Settings()
    for variable in given:
        assert variable.removeprefix("STILLWATCH_").lower() in settings.model_fields_set


def test_every_command_that_is_named_exists() -> None:
    verbs = set(getattr(typer.main.get_command(app), "commands", {}))
    named = set(re.findall(r"bin/stillwatch (\w+)", UNIT + CONTAINER))
    named |= {json.loads(line)[-1] for line in re.findall(r"^(?:    )?CMD (\[.*\])$", CONTAINER, re.MULTILINE)}
    named |= set(container()["args"])
    assert named == {"serve", "health", "bundle"}
    assert named <= verbs


def test_what_the_container_copies_exists_and_is_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = [
        name for line in re.findall(r"^COPY (?!--from)(.*)$", CONTAINER, re.MULTILINE) for name in line.split()[:-1]
    ]
    assert len(copied) >= 6
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in ignored


def test_the_container_runs_as_nobody_special_and_is_probed() -> None:
    last = CONTAINER.rpartition("\nFROM ")[2]
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    assert "HEALTHCHECK" in last
    assert "pip install" not in last
    assert last.index("USER ") < last.index("ENTRYPOINT")


def kind(name: str) -> dict[str, Any]:
    (found,) = (document for document in MANIFEST if document["kind"] == name)
    return dict(found)


def pod() -> dict[str, Any]:
    return dict(kind("Deployment")["spec"]["template"]["spec"])


def container() -> dict[str, Any]:
    (found,) = pod()["containers"]
    return dict(found)


def test_there_is_time_to_drain_before_the_kill() -> None:
    given = {pair["name"]: pair["value"] for pair in container()["env"]}
    pause = float(given.get("STILLWATCH_DRAIN_PAUSE_SECONDS", Settings().drain_pause_seconds))
    assert pod()["terminationGracePeriodSeconds"] >= pause + float(given["STILLWATCH_GRACE_SECONDS"]) + 10
    (stop,) = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)
    assert int(stop) >= Settings().drain_pause_seconds + Settings().grace_seconds + 10


def test_the_pods_are_confined_and_probed_by_grpc() -> None:
    assert pod()["securityContext"]["runAsNonRoot"] is True
    assert pod()["automountServiceAccountToken"] is False
    for part in (*pod()["containers"], *pod()["initContainers"]):
        assert part["securityContext"]["readOnlyRootFilesystem"] is True
        assert part["securityContext"]["allowPrivilegeEscalation"] is False
        assert part["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {"requests", "limits"} <= set(part["resources"])
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container()[probe]["grpc"]["port"] == ports["grpc"] == Settings().port


def test_selectors_find_the_pods_and_a_disruption_leaves_one() -> None:
    labels = kind("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert kind("Service")["spec"]["selector"] == labels
    assert kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert kind("NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == labels
    assert kind("PodDisruptionBudget")["spec"]["minAvailable"] < kind("Deployment")["spec"]["replicas"]


@pytest.mark.parametrize(
    "line",
    [
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "PrivateTmp=yes",
        "DynamicUser=yes",
        "StateDirectory=stillwatch",
        "CapabilityBoundingSet=",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
    ],
)
def test_the_unit_is_hardened(line: str) -> None:
    assert line in UNIT.splitlines()
