"""The log: bounded, structured, and without anybody's words."""

import json
import subprocess
import sys

import pytest
import structlog

from classifier.serve.log import LineLimit

MARKER = "zebra-marker-4711"
PROGRAM = """
import logging, threading
import structlog
from classifier.serve.log import configure_logging

configure_logging("{form}", "{level}", 5)
log = structlog.get_logger("test")
log.debug("quiet")
log.info("loud", number=1)
for _ in range(1_000):
    log.info("flood")

def fail():
    raise ValueError("{marker}")

try:
    fail()
except ValueError:
    logging.getLogger("grpc").exception("Unexpected error: {marker}")
logging.getLogger("grpc").warning("about %s", "{marker}")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
fail()
"""


def run(form: str = "json", level: str = "info") -> str:
    program = PROGRAM.format(form=form, level=level, marker=MARKER)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    return done.stderr


def test_every_line_is_json_and_none_holds_an_errors_words() -> None:
    output = run()
    assert MARKER not in output
    lines = [json.loads(line) for line in output.splitlines()]
    assert lines[0]["event"] == "loud"
    assert lines[0]["level"] == "info"
    library = [line for line in lines if line["event"] == "library"]
    assert library[0]["error"] == "ValueError"
    assert library[0]["logger"] == "grpc"
    assert library[0]["place"].startswith("fail:")
    assert "error" not in library[1]
    uncaught = [line for line in lines if line["event"] == "uncaught_error"]
    assert [line["error"] for line in uncaught] == ["ValueError", "ValueError"]
    assert all(line["place"].startswith("fail:") for line in uncaught)


def test_a_flood_of_one_kind_is_cut_and_leaves_the_others_be() -> None:
    lines = [json.loads(line) for line in run().splitlines()]
    floods = sum(line["event"] == "flood" for line in lines)
    assert 5 <= floods <= 20, "a thousand lines take far less than four seconds"


def test_the_level_and_the_form_are_kept() -> None:
    assert "quiet" in run(level="debug")
    output = run("console", "error")
    assert "loud" not in output
    assert "uncaught_error" in output
    assert MARKER not in output


def test_the_next_line_says_how_many_were_left_out() -> None:
    now = [0.0]
    limit = LineLimit(2, lambda: now[0])
    passed = []
    for second in (0.0, 0.1, 0.2, 0.9, 1.1, 1.2):
        now[0] = second
        try:
            passed.append(dict(limit(None, "info", {"event": "call"})))
        except structlog.DropEvent:
            continue
    assert passed == [{"event": "call"}, {"event": "call"}, {"event": "call", "suppressed": 2}, {"event": "call"}]


def test_one_kind_does_not_use_up_anothers_share() -> None:
    limit = LineLimit(1, lambda: 0.0)
    limit(None, "info", {"event": "call"})
    with pytest.raises(structlog.DropEvent):
        limit(None, "info", {"event": "call"})
    assert limit(None, "info", {"event": "draining"}) == {"event": "draining"}
