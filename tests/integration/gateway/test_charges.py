"""Who pays what: each request exactly once, by the answer that was given, whatever was tried for it."""

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass

import msgspec
import pytest

from gateway_rig import DEVELOPER, KEYS, House, endpoint_entry, house, replica_entry, snapshot
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import EngineUnavailable, UpstreamError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.limits import Limits
from pilothouse.domain.price import Price
from pilothouse.domain.snapshot import CachePolicy, DeploymentEntry, Route, Snapshot
from pilothouse.domain.used_tokens import Usage
from watched_engine import Say, WatchedEngine, endless, fails, silent, words

RPM, TPM, BUDGET = 1000, 1_000_000, 1_000_000
PRICES = {"first": 1, "spare": 3}
"""Millionths of a dollar a token."""
DOWN = fails(EngineUnavailable("nobody listens"))
HALF = fails(UpstreamError("cut"), after=["half ", "of it "])
USAGE = Usage(7, 2, 0)
GIVEN = words("Hello", " you", usage=USAGE)
PROMPT = len(b'[{"role":"user","content":"Hi"}]')
"""Bytes of the messages; where the engine never told their tokens, three of them are one."""


def served(names: list[str], **endpoint: object) -> Snapshot:
    keys = dict(KEYS)
    keys[DEVELOPER] = msgspec.structs.replace(
        keys[DEVELOPER], limits=Limits(rpm=RPM, tpm=TPM, parallel=9, budget_micro_usd=BUDGET)
    )
    entry = endpoint_entry("chat", routes=(Route("first"),), fallback=("spare",), **endpoint)
    made = [
        DeploymentEntry(name=name, phase="ready", price=Price(each * 10**6, each * 10**6))
        for name, each in PRICES.items()
    ]
    replicas = [replica_entry(name, name.split("-")[0]) for name in names]
    return snapshot(*replicas, keys=keys, endpoints=(entry,), deployments=tuple(made))


@dataclass
class Spent:
    requests: int
    tokens: int
    micro_usd: int


def spent(running: House) -> Spent:
    """What is gone from the key's limits, when everything was settled."""
    assert running.book.open == 0
    accounts = {account.kind: account for account in running.accounts.values()}
    assert all(account.reserved == 0 for account in accounts.values())
    assert accounts["parallel"].state().spent == 0
    return Spent(
        requests=accounts["rpm"].state().spent,
        tokens=accounts["tpm"].state().spent,
        micro_usd=accounts["budget"].state().spent,
    )


CASES: dict[str, tuple[dict[str, Say], Spent]] = {
    "answered": ({"first-0": GIVEN, "spare-0": GIVEN}, Spent(1, 9, 9)),
    "retried on another replica": ({"first-0": DOWN, "first-1": GIVEN, "spare-0": GIVEN}, Spent(1, 9, 9)),
    "answered by the fallback": ({"first-0": DOWN, "spare-0": GIVEN}, Spent(1, 9, 27)),
    "failed everywhere": ({"first-0": DOWN, "spare-0": DOWN}, Spent(1, 0, 0)),
}


@pytest.mark.parametrize("more", [b"", b',"stream":true'], ids=["whole", "streamed"])
@pytest.mark.parametrize("case", CASES)
async def test_a_request_is_paid_once_by_the_answer_that_was_given(case: str, more: bytes) -> None:
    says, due = CASES[case]
    engines = {name: WatchedEngine(say) for name, say in says.items()}

    async with house(lambda entry: engines[entry.name], served(list(says))) as running:
        for _ in range(3):
            await running.ask(more=more)
        paid = spent(running)

    assert paid == Spent(3 * due.requests, 3 * due.tokens, 3 * due.micro_usd)
    assert sum(record.cost_micro_usd for record in running.records) == paid.micro_usd
    assert len(running.records) == 3


async def test_a_stream_that_was_cut_pays_for_its_prompt_and_for_what_was_said() -> None:
    engines = {"first-0": WatchedEngine(HALF), "spare-0": WatchedEngine(GIVEN)}
    async with house(lambda entry: engines[entry.name], served(list(engines))) as running:
        await running.ask(more=b',"stream":true')
        paid, record = spent(running), running.records[0]

    assert record.code == "upstream_error"
    assert record.output_tokens > 0
    tokens = record.output_tokens + math.ceil(PROMPT / 3)
    assert paid == Spent(1, tokens, tokens * PRICES["first"])
    assert record.cost_micro_usd == paid.micro_usd
    assert not engines["spare-0"].asked


async def test_a_hang_up_pays_for_its_prompt_and_for_what_was_said() -> None:
    engines = {"first-0": WatchedEngine(endless()), "spare-0": WatchedEngine(GIVEN)}
    async with house(lambda entry: engines[entry.name], served(list(engines))) as running:
        async with running.asking(more=b',"stream":true,"max_tokens":500') as raw:
            await running.until(lambda: engines["first-0"].running == 1)
            raw.abort()
        await running.until(lambda: len(running.records) == 1)
        paid, record = spent(running), running.records[0]

    assert record.code == "client_closed"
    tokens = record.output_tokens + math.ceil(PROMPT / 3)
    assert paid == Spent(1, tokens, tokens * PRICES["first"])
    assert record.cost_micro_usd == paid.micro_usd


async def test_of_two_that_were_asked_the_one_that_answered_is_paid() -> None:
    engines = {"first-0": WatchedEngine(silent()), "first-1": WatchedEngine(silent())}

    async def only_as_the_second(_: GenerateRequest) -> AsyncIterator[Chunk]:
        while not all(engine.running for engine in engines.values()):
            await asyncio.sleep(0.2)  # the first hears of it too late
        if engines["first-0"].running and engines["first-1"].running:
            yield Chunk((Delta("Hello", 0, "stop"),), USAGE)

    for engine in engines.values():
        engine.say = only_as_the_second
    async with house(
        lambda entry: engines[entry.name], served(list(engines), hedge_after_s=0.02, timeout_s=5.0)
    ) as running:
        answer = await running.ask()
        paid = spent(running)

    assert answer.status == 200
    assert [len(engine.asked) for engine in engines.values()] == [1, 1]
    assert paid == Spent(1, 9, 9)
    assert [record.cost_micro_usd for record in running.records] == [9]


async def test_an_answer_from_the_cache_and_one_that_is_shared_are_requests_and_nothing_more() -> None:
    gate = asyncio.Event()

    async def held(request: GenerateRequest) -> AsyncIterator[Chunk]:
        await gate.wait()
        async for chunk in GIVEN(request):
            yield chunk

    engines = {"first-0": WatchedEngine(held), "spare-0": WatchedEngine(GIVEN)}
    cold = b',"temperature":0'
    policy = CachePolicy(exact_ttl_s=60.0, fingerprint="f")
    async with house(lambda entry: engines[entry.name], served(list(engines), cache=policy)) as running:
        together = [asyncio.create_task(running.ask(more=cold)) for _ in range(3)]
        await running.until(lambda: running.state.inflight >= 1)
        await asyncio.sleep(0.05)
        gate.set()
        await asyncio.wait(together)
        await running.ask(more=cold)
        paid = spent(running)

    assert len(engines["first-0"].asked) == 1
    assert paid == Spent(4, 9, 9)
    assert sorted(record.cost_micro_usd for record in running.records) == [0, 0, 0, 9]


async def test_a_request_that_is_refused_pays_nothing_at_any_scope() -> None:
    engines = {"first-0": WatchedEngine(GIVEN), "spare-0": WatchedEngine(GIVEN)}
    async with house(lambda entry: engines[entry.name], served(list(engines))) as running:
        refused = await running.ask(more=b',"max_tokens":900,"n":100')
        garbled = await running.ask(more=b',"temperature":"hot"')
        accounts = list(running.accounts.values())

    assert refused.status >= 400
    assert garbled.status == 400
    assert all(account.state().spent == 0 for account in accounts)
    assert running.book.open == 0
