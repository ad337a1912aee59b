"""KV transfers: fair sharing, conservation of bytes, first-come wires."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.link import Network, Path

GB = 1e9


def drain(network: Network) -> None:
    while (end := network.next_event_s()) != float("inf"):
        network.advance(end)


def path(*resources: str, fifo: bool = False) -> Path:
    return Path("wire", resources, 0.0, 0.0, fifo)


@pytest.mark.parametrize("n", [1, 2, 7, 50])
def test_n_transfers_at_once_take_n_times_as_long(n: int) -> None:
    network = Network({"a>": GB, ">b": GB})
    ends: list[float] = []
    for _ in range(n):
        network.start(path("a>", ">b"), 0.5 * GB, 1.0, ends.append)
    drain(network)
    assert ends == pytest.approx([1.0 + 0.5 * n] * n, rel=1e-9)


def test_first_come_serves_one_at_a_time() -> None:
    network = Network({"a>": GB})
    ends: list[float] = []
    for _ in range(3):
        network.start(path("a>", fifo=True), GB, 0.0, ends.append)
    drain(network)
    assert ends == pytest.approx([1.0, 2.0, 3.0])


def test_a_late_transfer_slows_the_first_one() -> None:
    network = Network({"a>": GB})
    ends: dict[str, float] = {}
    network.start(path("a>"), GB, 0.0, lambda t: ends.setdefault("first", t))
    network.start(path("a>"), GB, 0.5, lambda t: ends.setdefault("second", t))
    drain(network)
    # 0.5 s alone, then both at half rate until the first ends at 1.5, then the second alone
    assert ends == pytest.approx({"first": 1.5, "second": 2.0})


def test_max_min_gives_what_a_tight_uplink_leaves_to_others() -> None:
    network = Network({"n0>uplink": GB, "a>": 2 * GB, "b>": 2 * GB})
    ends: dict[str, float] = {}
    network.start(path("a>", "n0>uplink"), GB, 0.0, lambda t: ends.setdefault("over", t))
    network.start(path("a>"), 1.5 * GB, 0.0, lambda t: ends.setdefault("inside", t))
    drain(network)
    # a's port carries 2 GB/s: 1 for each while both run
    assert ends == pytest.approx({"over": 1.0, "inside": 1.25})


@given(
    st.lists(
        st.tuples(st.floats(0, 10), st.integers(1, 10**9), st.sampled_from(["ab", "ac", "bc", "b"])),
        min_size=1,
        max_size=40,
    )
)
def test_every_transfer_ends_once_and_no_resource_carries_more_than_it_can(
    flows: list[tuple[float, int, str]],
) -> None:
    capacity = {"a": 0.7 * GB, "b": GB, "c": 0.3 * GB}
    network = Network(capacity)
    spans: list[tuple[str, int, float, float]] = []
    for start, size, resources in sorted(flows):
        network.start(
            path(*resources), size, start, lambda end, s=start, n=size, r=resources: spans.append((r, n, s, end))
        )
    drain(network)
    assert len(spans) == len(flows)
    assert network.in_flight == 0
    for resource, rate in capacity.items():
        users = [span for span in spans if resource in span[0]]
        if users:
            busy = max(end for *_, end in users) - min(start for _, _, start, _ in users)
            assert sum(size for _, size, _, _ in users) <= rate * busy * (1 + 1e-9) + 1
    for resources, size, start, end in spans:
        alone = min(capacity[r] for r in resources)
        assert end - start >= size / alone * (1 - 1e-9) - 1e-9


def test_a_link_that_is_offered_more_than_it_carries_diverges() -> None:
    network = Network({"a>": GB})
    ends: list[float] = []
    for i in range(2000):
        network.start(path("a>"), 2 * GB, float(i), ends.append)
    drain(network)
    assert max(ends) == pytest.approx(4000.0)
