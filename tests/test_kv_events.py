"""The prefix index that follows vLLM's KV events, and routing by it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_engine import FakeEngine
from live.frontend import Frontend
from live.kv_events import KvEventFeed, PrefixIndex, overlaps, subscription
from live.servers import free_ports
from test_frontend import post, served

SIZE = 4


def stored(tokens: Sequence[int], salt: str = "", first: int = 0) -> dict[str, Any]:
    """vLLM's event for the full blocks of a prompt from block `first` on; hashes are opaque, salted names."""
    count = len(tokens) // SIZE
    hashes = [f"{salt}{tuple(tokens[: (n + 1) * SIZE])}".encode() for n in range(count)]
    return {
        "type": "BlockStored",
        "block_hashes": hashes[first:],
        "parent_block_hash": hashes[first - 1] if first else None,
        "token_ids": list(tokens[first * SIZE : count * SIZE]),
        "block_size": SIZE,
        "medium": "GPU",
    }


def removed(event: dict[str, Any], *numbers: int) -> dict[str, Any]:
    return {"type": "BlockRemoved", "block_hashes": [event["block_hashes"][n] for n in numbers], "medium": "GPU"}


def held(index: PrefixIndex, tokens: Sequence[int]) -> int:
    return overlaps(tokens, SIZE, [index])[0]


def test_overlap_counts_full_blocks_from_the_start() -> None:
    index, prompt = PrefixIndex(), list(range(12))
    event = stored(prompt)
    index.apply(event)
    assert held(index, [*prompt, 99]) == 12
    assert held(index, prompt) == 8  # the last token is always computed
    assert held(index, [*prompt[:8], 99, 99, 99, 99, 1]) == 8
    assert held(index, [99, *prompt]) == 0
    index.apply(removed(event, 1))
    assert held(index, [*prompt, 99]) == 4
    index.apply(stored([*prompt, 20, 21, 22, 23], first=3))  # hangs on a block that is still there
    assert index.orphans == 0
    index.apply({"type": "AllBlocksCleared"})
    assert (held(index, [*prompt, 99]), len(index)) == (0, 0)


def test_tagged_arrays_of_older_versions() -> None:
    index, prompt = PrefixIndex(), list(range(8))
    event = stored(prompt)
    fields = ("block_hashes", "parent_block_hash", "token_ids", "block_size")
    index.apply(["BlockStored", *(event[name] for name in fields), None, "GPU"])
    assert held(index, [*prompt, 1]) == 8
    index.apply(["BlockRemoved", event["block_hashes"], "GPU"])
    assert len(index) == 0


def test_a_missed_parent_and_other_tiers_are_not_counted() -> None:
    index, prompt = PrefixIndex(), list(range(12))
    index.apply(stored(prompt, first=1))
    assert (len(index), index.orphans) == (0, 2)
    index.apply(stored(prompt) | {"medium": "CPU"})
    assert len(index) == 0


@given(st.lists(st.tuples(st.lists(st.integers(0, 2), min_size=4, max_size=20), st.booleans()), max_size=20))
def test_the_index_equals_a_plain_set_of_prefixes(steps: list[tuple[list[int], bool]]) -> None:
    """Whatever is stored and removed (leaves first, as an engine evicts), overlap is that of the set of prefixes."""
    index, plain = PrefixIndex(), set[tuple[int, ...]]()
    for tokens, drop in steps:
        event = stored(tokens)
        prefixes = [tuple(tokens[: (n + 1) * SIZE]) for n in range(len(tokens) // SIZE)]
        if drop and prefixes and prefixes[-1] in plain:
            index.apply(removed(event, len(prefixes) - 1))
            plain.discard(prefixes[-1])
        elif not drop:
            index.apply(event)
            plain.update(prefixes)
    assert len(index) == len(plain)
    for tokens, _ in steps:
        expected = 0
        for end in range(SIZE, len(tokens), SIZE):
            if tuple(tokens[:end]) not in plain:
                break
            expected = end
        assert held(index, tokens) == expected


def test_a_lost_batch_empties_the_index_and_ages_are_kept() -> None:
    feed, prompt = KvEventFeed("w", "tcp://127.0.0.1:1"), list(range(8))
    feed.receive(5, [100.0, [stored(prompt)], 0], 100.25)
    assert (len(feed.index), feed.gaps, list(feed.ages_s)) == (2, 0, [0.25])
    feed.receive(7, [101.0, [], 0], 101.0)
    assert (len(feed.index), feed.gaps) == (0, 1)
    feed.receive(8, [102.0, [stored(prompt)], 0], 102.0)
    feed.receive(0, [103.0, [], 0], 103.0)  # the engine was started again
    assert (len(feed.index), feed.gaps) == (0, 1)


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("tcp://*:5557", ("tcp://10.0.0.2:5557", False)),
        ("tcp://127.0.0.1:5557", ("tcp://127.0.0.1:5557", True)),
        ("ipc:///tmp/events", ("ipc:///tmp/events", False)),
    ],
)
def test_the_subscriber_does_what_the_publisher_does_not(endpoint: str, expected: tuple[str, bool]) -> None:
    assert subscription(endpoint, "10.0.0.2") == expected


def test_routing_follows_real_events() -> None:
    """Two publishers over ZeroMQ: prompts go to the worker whose cache holds them; the events' age is measured."""
    zmq = pytest.importorskip("zmq")
    msgspec = pytest.importorskip("msgspec")
    ports = free_ports(2)
    engines = [FakeEngine(f"aggregated-{n}", kv_events=f"tcp://127.0.0.1:{ports[n]}") for n in range(2)]
    deployment = {"mode": "aggregated", "replicas": 2, "router": {"policy": "prefix_aware"}}
    prompts = [list(range(start, start + 64)) for start in (1000, 2000)]

    def publish(socket: Any, number: int, tokens: list[int]) -> None:
        size = 16
        hashes = [f"{tokens[0]}-{block}".encode() for block in range(len(tokens) // size)]
        event = {
            "type": "BlockStored", "block_hashes": hashes, "parent_block_hash": None, "token_ids": tokens,
            "block_size": size, "lora_id": None, "medium": "GPU", "lora_name": None,
        }  # fmt: skip
        payload = msgspec.msgpack.encode([time.time(), [event], 0])
        socket.send_multipart((b"", number.to_bytes(8, "big"), payload))

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        context = zmq.Context.instance()
        sockets = [context.socket(zmq.XPUB) for _ in engines]  # they tell when the frontend has subscribed
        for socket, port in zip(sockets, ports, strict=True):
            socket.connect(f"tcp://127.0.0.1:{port}")
        for number, (socket, prompt) in enumerate(zip(sockets, prompts, strict=True)):
            assert await asyncio.to_thread(socket.poll, 10_000), "the frontend did not subscribe"
            publish(socket, number, prompt)
        deadline = time.monotonic() + 10
        while (frontend.observations()["kv_event_age_s"] or {"batches": 0})["batches"] < 2:
            assert time.monotonic() < deadline, "the frontend did not read the events"
            await asyncio.sleep(0.01)
        for number in (1, 0, 0, 1, 1):
            assert (await post(session, {"prompt": [*prompts[number], 7], "max_tokens": 1}))[0] == 200
            assert len(engines[number].requests) > 0
        assert [len(engine.requests) for engine in engines] == [2, 3]
        text = {"messages": [{"role": "user", "content": "x" * 40}]}
        assert (await post(session, text, "/chat"))[0] == 200  # tokenised by a worker
        for socket in sockets:
            socket.close(linger=0)

    frontend = served(test, engines, deployment)
    seen = frontend.observations()
    assert seen["kv_event_age_s"]["batches"] == 2
    assert 0 <= seen["kv_event_age_s"]["p50"] < 0.5
    assert seen["notes"] == []
