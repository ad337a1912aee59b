"""The KV cache: keys of blocks, order of eviction, copies, a request's own blocks, and all of it block by block."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.traffic.requests import Segments
from simulator import kv_cache
from simulator.kv_cache import BlockRun, Holding, Keys, KvCache
from simulator.kv_cache import block_keys as keys_of

SEGMENTS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=6).map(tuple)


def block_keys(segments: tuple[tuple[int, int], ...], tokens: int, size: int) -> tuple[int, ...]:
    return listed(keys_of(segments, tokens, size))


def listed(keys: Keys) -> tuple[int, ...]:
    return tuple(keys.at(block) for block in range(keys.length))


def of(*keys: int) -> Keys:
    """Blocks of which none goes on with the number of the one before."""
    return Keys(list(range(len(keys))), list(keys), len(keys), len(keys))


def tokens_of(segments: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
    return [(content, offset) for content, size in segments for offset in range(size)]


@given(SEGMENTS, SEGMENTS, st.integers(1, 5))
def test_keys_are_equal_exactly_where_the_prefixes_are(
    left: tuple[tuple[int, int], ...], right: tuple[tuple[int, int], ...], size: int
) -> None:
    a, b = tokens_of(left), tokens_of(right)
    keys_a, keys_b = block_keys(left, len(a), size), block_keys(right, len(b), size)
    assert len(keys_a) == len(a) // size
    for index, (one, other) in enumerate(zip(keys_a, keys_b, strict=False)):
        end = (index + 1) * size
        assert (one == other) == (a[:end] == b[:end])


def test_keys_stop_at_the_tokens_asked_for() -> None:
    assert block_keys(((1, 100),), 40, 16) == block_keys(((1, 100),), 100, 16)[:2]


def holding(*keys: int) -> Holding:
    held = Holding()
    held.keys, held.shared, held.covered, held.extent = of(*keys), [], 0, 0
    return held


def filled(cache: KvCache, *keys: int) -> Holding:
    """A request whose blocks are `keys`, computed and still held."""
    held = holding(*keys)
    cache.take(len(keys))
    cache.register(held, len(keys))
    return held


def found(cache: KvCache, *keys: int) -> int:
    return cache.lookup(of(*keys), len(keys))[0]


def test_blocks_without_content_go_first_then_the_tail_of_the_oldest() -> None:
    cache = KvCache(10, 16, caching=True)
    old, new = filled(cache, 1, 2, 3), filled(cache, 4, 5)
    cache.give_back(old, 3, 3)
    cache.give_back(new, 2, 2)
    assert (cache.free, cache.blank) == (10, 5)
    cache.take(6)
    assert found(cache, 1, 2, 3) == 2
    cache.take(1)
    assert found(cache, 1, 2, 3) == 1
    assert found(cache, 4, 5) == 2
    assert cache.evicted == 2


def test_a_hit_block_is_not_evicted() -> None:
    cache = KvCache(3, 16, caching=True)
    first = filled(cache, 1, 2)
    cache.give_back(first, 2, 2)
    second = holding(1, 2)
    cache.hit(second, *cache.lookup(second.keys, 1))
    assert cache.free == 2
    cache.take(2)
    assert found(cache, 1, 2) == 1
    cache.give_back(second, 1, 1)
    assert cache.free == 1


def test_a_run_in_use_is_cut_where_another_request_uses_a_part_of_it() -> None:
    cache = KvCache(8, 16, caching=True)
    whole, part = filled(cache, 1, 2, 3, 4), holding(1, 2, 7)
    cache.hit(part, *cache.lookup(part.keys, 9))
    assert part.covered == 2
    cache.give_back(whole, 4, 4)
    assert cache.free == 6  # 1 and 2 are still in use
    cache.take(5)
    assert found(cache, 1, 2, 3, 4) == 3
    cache.give_back(part, 2, 2)
    assert cache.free == 3
    cache.take(3)
    assert found(cache, 1) == 0


def test_equal_blocks_are_copies_and_the_oldest_is_hit() -> None:
    cache = KvCache(4, 16, caching=True)
    one, two = filled(cache, 7), filled(cache, 7)
    assert cache.free == 2
    assert cache.lookup(of(7), 1) == (1, one.shared)
    cache.give_back(one, 1, 1)
    cache.take(3)
    assert cache.lookup(of(7), 1) == (1, two.shared)
    cache.give_back(two, 1, 1)
    cache.take(1)
    assert found(cache, 7) == 0
    assert cache.table == {}


def test_what_was_computed_before_is_cached_as_far_as_there_is_room() -> None:
    cache = KvCache(6, 16, caching=True)
    cache.recall(of(1, 2, 3))
    assert (cache.free, cache.blank, found(cache, 1, 2, 3)) == (6, 3, 3)
    cache.recall(of(1, 2, 3, 4))
    assert (cache.free, cache.blank, found(cache, 1, 2, 3, 4)) == (6, 2, 4)
    cache.recall(of(5, 6, 7, 8, 9))  # the oldest go
    assert (cache.free, cache.blank, found(cache, 5, 6, 7, 8, 9), found(cache, 1, 2)) == (6, 0, 5, 1)
    held = filled(cache, 10, 11)
    cache.recall(of(20, 21, 22, 23, 24))
    assert (cache.free, found(cache, 10, 11), found(cache, 20)) == (4, 2, 0)
    cache.give_back(held, 2, 2)
    assert cache.free == 6


def test_an_own_extent_shrinks_from_its_tail_and_can_be_taken_back() -> None:
    cache = KvCache(8, 16, caching=True)
    held = holding()
    cache.take(5)
    cache.give_back(held, 5, 4)
    assert (cache.free, cache.blank, held.extent) == (8, 4, 4)
    cache.take(5)
    assert held.extent == 3
    cache.hit_own(held)
    assert (cache.free, held.extent) == (0, 0)


def test_without_caching_nothing_is_kept() -> None:
    cache = KvCache(8, 16, caching=False)
    held = holding()
    cache.take(5)
    cache.give_back(held, 5, 4)
    assert (cache.free, cache.blank, held.extent) == (8, 8, 0)
    assert not list(cache.order())


def order_of(cache: KvCache) -> list[int]:
    """What is evicted next, block by block; 0 is a block of a request's own."""
    order: list[int] = []
    for entry in cache.order():
        if isinstance(entry, BlockRun):
            order += [entry.keys.at(block) for block in range(entry.end - 1, entry.start - 1, -1)]
        elif isinstance(entry, Holding):
            order += [0] * entry.extent
    return order


@pytest.mark.parametrize("caching", [True, False])
def test_free_is_blank_plus_what_can_be_evicted(caching: bool) -> None:
    cache = KvCache(20, 16, caching)
    requests = [filled(cache, *(range(10 * n, 10 * n + 3) if caching else ())) for n in range(3)]
    if not caching:
        cache.take(9)
    for held in requests:
        cache.give_back(held, 3, 3)
        assert cache.free == cache.blank + len(order_of(cache))
    assert cache.free == 20


class Plain:
    """The same rules with a list of blocks: each a (key, number); a key of 0 is what no other request contains."""

    def __init__(self, total: int) -> None:
        self.blank = total
        self.number = 0
        self.copies: list[tuple[int, int]] = []  # cached blocks that may be shared, oldest first
        self.users: dict[tuple[int, int], int] = {}
        self.order: list[tuple[int, int]] = []
        self.gone: list[int] = []  # keys of evicted blocks

    @property
    def free(self) -> int:
        return self.blank + len(self.order)

    def take(self, blocks: int) -> None:
        for _ in range(blocks - self.blank):
            block = self.order.pop(0)
            self.gone.append(block[0])
            if block[0]:
                self.copies.remove(block)
        self.blank = max(self.blank - blocks, 0)

    def lookup(self, keys: tuple[int, ...], limit: int) -> list[tuple[int, int]]:
        hits = []
        for key in keys[:limit]:
            block = next((block for block in self.copies if block[0] == key), None)
            if block is None:
                break
            hits.append(block)
        return hits

    def hit(self, blocks: list[tuple[int, int]]) -> None:
        for block in blocks:
            if not self.users[block]:
                self.order.remove(block)
            self.users[block] += 1

    def register(self, keys: tuple[int, ...], held: list[tuple[int, int]], blocks: int) -> None:
        for key in keys[len(held) : blocks]:
            self.number += 1
            held.append((key, self.number))
            self.copies.append(held[-1])
            self.users[held[-1]] = 1

    def give_back(self, keys: tuple[int, ...], held: list[tuple[int, int]], blocks: int, cached: int) -> None:
        self.register(keys, held, cached)
        self.blank += blocks - cached
        for _ in range(cached - len(held)):
            self.number += 1
            self.order.append((0, self.number))
        for block in reversed(held):
            self.users[block] -= 1
            if not self.users[block]:
                self.order.append(block)


@given(st.randoms(use_true_random=False), st.sampled_from([6, 12, 25, 60]))
def test_runs_are_what_block_by_block_would_be(rng: random.Random, total: int) -> None:
    """Requests with little content between them come, compute and go; hits, counts and the next victims are equal."""
    cache, plain = KvCache(total, 1, caching=True), Plain(total)
    running: list[tuple[Holding, list[tuple[int, int]], int, list[int]]] = []

    def come() -> None:
        segments = tuple((rng.randint(0, 2), rng.randint(1, 5)) for _ in range(rng.randint(1, 4)))
        length = sum(size for _, size in segments)
        held = holding()
        held.keys = keys_of(segments, rng.randint(0, length), 1)
        blocks, runs = cache.lookup(held.keys, length - 1)
        hits = plain.lookup(listed(held.keys), length - 1)
        assert blocks == len(hits)
        unused = sum(min(run.end, blocks) - run.start for run in runs if not run.users)
        assert unused == sum(not plain.users[block] for block in hits)
        if length - blocks > plain.free - unused:
            return
        if hits:
            cache.hit(held, blocks, runs)
            plain.hit(hits)
        cache.take(length - blocks)
        plain.take(length - blocks)
        running.append((held, hits, length, [blocks]))

    def compute() -> None:
        if running:
            held, hits, length, done = rng.choice(running)
            done[0] = rng.randint(done[0], length)
            cache.register(held, done[0])
            plain.register(listed(held.keys), hits, done[0])

    def go() -> None:
        if running:
            held, hits, length, done = running.pop(rng.randrange(len(running)))
            cached = rng.randint(done[0], length)
            cache.give_back(held, length, cached)
            plain.give_back(listed(held.keys), hits, length, cached)

    steps: list[Callable[[], None]] = [come, come, compute, go]
    for _ in range(rng.randint(5, 60)):
        rng.choice(steps)()
        assert (cache.free, cache.blank, cache.evicted) == (plain.free, plain.blank, len(plain.gone))
        assert order_of(cache) == [key for key, _ in plain.order]
        shared = [users for users in plain.users.values() if users > 1]
        assert (cache.common, cache.again) == (len(shared), sum(shared) - len(shared))
        runs = [one for copies in cache.table.values() for one in (copies if isinstance(copies, list) else [copies])]
        assert sorted(run.keys.at(block) for run in runs for block in range(run.start, run.end)) == sorted(
            key for key, _ in plain.copies
        )


@given(
    sizes=st.lists(st.tuples(st.integers(0, 3), st.sampled_from([1, 3, 15, 16, 17, 40, 200])), min_size=1, max_size=8),
    less=st.integers(0, 40),
    block_size=st.sampled_from([4, 16]),
)
def test_keys_of_a_growing_prompt_are_those_of_the_prompt_alone(
    sizes: list[tuple[int, int]], less: int, block_size: int
) -> None:
    """What was remembered of shorter prompts shortens the work and changes no key."""
    prompts = [tuple(sizes[:count]) for count in range(1, len(sizes) + 1)]
    tokens = [max(sum(size for _, size in prompt) - less * (index % 2), 0) for index, prompt in enumerate(prompts)]
    keys_of.cache_clear()
    kv_cache._walked.clear()
    grown = [block_keys(prompt, n, block_size) for prompt, n in zip(prompts, tokens, strict=True)]
    for prompt, n, keys in zip(prompts, tokens, grown, strict=True):
        keys_of.cache_clear()
        kv_cache._walked.clear()
        assert block_keys(prompt, n, block_size) == keys
        assert len(keys) == n // block_size


@given(begun=SEGMENTS, turns=SEGMENTS, size=st.integers(1, 8))
def test_keys_that_share_their_lists_stay_what_they_are(begun: Segments, turns: Segments, size: int) -> None:
    """Whatever else goes on from where they end, and goes on from there."""

    def anew(segments: Segments) -> tuple[int, ...]:
        kv_cache._walked.clear()
        keys_of.cache_clear()
        return block_keys(segments, sum(tokens for _, tokens in segments), size)

    anew(begun)
    first = keys_of(begun, sum(tokens for _, tokens in begun), size)
    ways = [((*begun, turn), first.then(*turn, size)) for turn in turns]
    ways += [((*segments, turns[0]), way.then(*turns[0], size)) for segments, way in ways]
    found = [listed(way) for _, way in ways]
    assert found == [anew(segments) for segments, _ in ways]
    assert listed(first) == anew(begun)
