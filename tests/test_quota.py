"""Quotas: what is let in, and the exact time until it is."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stillwatch.v1 import classifier_pb2

from classifier.errors import DeadlineTooShort, EmptyPrompt, Overloaded, QuotaExceeded, ShuttingDown, StillwatchError
from classifier.serve.guard import Guard
from classifier.serve.quota import MAX_CALLERS, Quota, Quotas
from classifier.tokens import Scope, Token


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_without_a_quota_everything_is_let_in_and_nobody_is_remembered() -> None:
    quotas = Quotas(Clock())
    for _ in range(1_000):
        quotas.charge("a", 10**9, Quota())
    assert len(quotas) == 0


def test_a_seconds_worth_of_requests_may_come_at_once_and_no_more() -> None:
    quotas = Quotas(Clock())
    for _ in range(5):
        quotas.charge("a", 1, Quota(requests_per_second=5))
    with pytest.raises(QuotaExceeded) as raised:
        quotas.charge("a", 1, Quota(requests_per_second=5))
    assert raised.value.retry_after == pytest.approx(0.2)
    assert raised.value.subject == "a"


def test_one_caller_does_not_use_up_anothers_share() -> None:
    quotas, share = Quotas(Clock()), Quota(tokens_per_minute=100)
    quotas.charge("a", 100, share)
    quotas.charge("b", 100, share)
    with pytest.raises(QuotaExceeded):
        quotas.charge("a", 1, share)


def test_what_is_refused_costs_nothing() -> None:
    quotas, share = Quotas(Clock()), Quota(tokens_per_minute=100, requests_per_second=2)
    quotas.charge("a", 60, share)
    with pytest.raises(QuotaExceeded):
        quotas.charge("a", 60, share)
    quotas.charge("a", 40, share)  # neither tokens nor a request were taken for the refused one


def test_a_refund_gives_back_what_was_charged_and_no_more_than_the_bucket_holds() -> None:
    clock = Clock()
    quotas, share = Quotas(clock), Quota(tokens_per_minute=60, requests_per_second=1)
    quotas.charge("a", 60, share)
    quotas.refund("a", 60, share)
    quotas.charge("a", 60, share)
    clock.now += 3_600
    quotas.refund("a", 60, share)
    quotas.charge("a", 60, share)
    assert quotas.wait("a", 60, share) == pytest.approx(60)
    quotas.refund("nobody", 60, share)
    quotas.refund("a", 60, Quota())
    assert len(quotas) == 1


@pytest.mark.parametrize(
    ("error", "refunded"), [(Overloaded, True), (DeadlineTooShort, True), (ShuttingDown, True), (EmptyPrompt, False)]
)
async def test_a_call_that_the_queue_refuses_costs_no_quota(error: type[StillwatchError], *, refunded: bool) -> None:
    guard = Guard(None, Quota(requests_per_second=0.001), anonymous=frozenset(), most_calls=9)
    token = Token(name="gateway", sha256="0" * 64, scopes=frozenset({Scope.CLASSIFY}))

    async def behaviour(message: Any, context: Any) -> None:
        raise error("it was refused")

    handle = guard._unary(behaviour, token)
    context: Any = None
    with pytest.raises(error):
        await handle(classifier_pb2.ClassifyRequest(), context)
    with pytest.raises(error if refunded else QuotaExceeded):
        await handle(classifier_pb2.ClassifyRequest(), context)


def test_a_request_larger_than_the_quota_passes_alone_and_is_paid_for_afterwards() -> None:
    clock = Clock()
    quotas, share = Quotas(clock), Quota(tokens_per_minute=60)
    quotas.charge("a", 600, share)
    assert quotas.wait("a", 1, share) == pytest.approx(541)
    clock.now += 541
    quotas.charge("a", 1, share)


@given(
    tokens=st.integers(1, 10_000),
    requests=st.floats(0.1, 1_000),
    costs=st.lists(st.tuples(st.integers(1, 20_000), st.floats(0, 30)), max_size=30),
)
def test_the_wait_is_exact(tokens: int, requests: float, costs: list[tuple[int, float]]) -> None:
    clock = Clock()
    quotas, share = Quotas(clock), Quota(tokens, requests)
    for cost, pause in costs:
        clock.now += pause
        wait = quotas.wait("a", cost, share)
        if wait > 0.001:
            clock.now += wait - 0.001
            assert quotas.wait("a", cost, share) > 0, "it was let in before its time"
            clock.now += 0.001
            assert quotas.wait("a", cost, share) == 0, "it was not let in at its time"


def test_the_table_of_callers_is_bounded_and_forgets_the_silent_ones() -> None:
    quotas, share = Quotas(Clock()), Quota(requests_per_second=1)
    quotas.charge("busy", 1, share)
    for number in range(MAX_CALLERS + 100):
        quotas.charge(str(number), 1, share)
        quotas.wait("busy", 1, share)
    assert len(quotas) == MAX_CALLERS
    assert quotas.wait("busy", 1, share) > 0, "who keeps asking is not forgotten"
