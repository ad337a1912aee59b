"""The KV cache: keys of blocks, order of eviction, copies, and a request's own blocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.kv_cache import Holding, KvCache, block_keys

SEGMENTS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=6).map(tuple)


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
    held.keys, held.shared, held.extent = keys, [], 0
    return held


def filled(cache: KvCache, *keys: int) -> Holding:
    """A request whose blocks are `keys`, computed and still held."""
    held = holding(*keys)
    cache.take(len(keys))
    cache.register(held, len(keys))
    return held


def test_blocks_without_content_go_first_then_the_tail_of_the_oldest() -> None:
    cache = KvCache(10, 16, caching=True)
    old, new = filled(cache, 1, 2, 3), filled(cache, 4, 5)
    cache.give_back(old, 3, 3)
    cache.give_back(new, 2, 2)
    assert (cache.free, cache.blank) == (10, 5)
    cache.take(6)
    assert [block.key for block in cache.lookup((1, 2, 3), 9)] == [1, 2]
    cache.take(1)
    assert [block.key for block in cache.lookup((1, 2, 3), 9)] == [1]
    assert len(cache.lookup((4, 5), 9)) == 2
    assert cache.evicted == 2


def test_a_hit_block_is_not_evicted() -> None:
    cache = KvCache(3, 16, caching=True)
    first = filled(cache, 1, 2)
    cache.give_back(first, 2, 2)
    second = holding(1, 2)
    cache.hit(second, cache.lookup(second.keys, 1))
    assert cache.free == 2
    cache.take(2)
    assert [block.key for block in cache.lookup((1, 2), 9)] == [1]
    cache.give_back(second, 1, 1)
    assert cache.free == 1


def test_equal_blocks_are_copies_and_the_oldest_is_hit() -> None:
    cache = KvCache(4, 16, caching=True)
    one, two = filled(cache, 7), filled(cache, 7)
    oldest = one.shared[0]
    assert cache.free == 2
    assert cache.lookup((7,), 1) == [oldest]
    cache.give_back(one, 1, 1)
    cache.take(3)
    assert cache.lookup((7,), 1) == two.shared
    cache.give_back(two, 1, 1)
    cache.take(1)
    assert cache.lookup((7,), 1) == []
    assert cache.table == {}


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
    assert not cache.order


@pytest.mark.parametrize("caching", [True, False])
def test_free_is_blank_plus_what_can_be_evicted(caching: bool) -> None:
    cache = KvCache(20, 16, caching)
    requests = [filled(cache, *(range(10 * n, 10 * n + 3) if caching else ())) for n in range(3)]
    if not caching:
        cache.take(9)
    for held in requests:
        cache.give_back(held, 3, 3)
        unused = sum(entry.extent if isinstance(entry, Holding) else 1 for entry in cache.order)
        assert cache.free == cache.blank + unused
    assert cache.free == 20
