"""What posting a hand-over costs, and whom: the measured pair's figures are in configs/links/nvlink_nixl.yaml."""

from __future__ import annotations

import pytest

from planner import load, simulate, summarise
from planner.report.explain import explain
from planner.run.metrics import Summary
from planner.system.wires import HandOver, connector_config

PAIR = ["workload.rate=10", "workload.requests=300", "profile=h200-llama-3.1-8b-tp1-served"]
NIXL = "deployment.link.preset=nvlink_nixl"


def figures(*overrides: str) -> tuple[float, float]:
    """(TTFT p50, TPOT p50) in ms of 1P1D under 10 req/s of 3000/100."""
    found = summarise(simulate(load("disagg", [*PAIR, *overrides])))
    return float(found["ttft_p50_ms"] or 0), float(found["tpot_p50_ms"] or 0)


def test_posting_stretches_decode_steps_with_pull_and_not_with_push() -> None:
    """Measured: TPOT 5.4 ms with push, 9.0 with pull. TTFT is higher with push."""
    _, free = figures("deployment.link.preset=nvlink")
    ttft_pull, pull = figures(NIXL)
    ttft_push, push = figures(NIXL, "deployment.link.connector=NixlPushConnector")
    assert 8 < pull < 11
    assert push == pytest.approx(free, rel=0.03)
    assert ttft_push > ttft_pull


@pytest.mark.parametrize("fewer", ["engine.block_size=128", "deployment.link.cross_layer_blocks=true"])
def test_fewer_descriptors_take_less(fewer: str) -> None:
    assert figures(NIXL, fewer)[1] < 0.7 * figures(NIXL)[1]


def test_descriptors_of_a_block() -> None:
    assert HandOver().descriptors(32, latent=False, fan_out=1) == 64  # 188 blocks of a 3,000-token prompt: 12,032
    assert HandOver().descriptors(61, latent=True, fan_out=1) == 61
    assert HandOver().descriptors(32, latent=False, fan_out=2) == 128
    assert HandOver(cross_layer_blocks=True).descriptors(32, latent=False, fan_out=1) == 1


@pytest.mark.parametrize("connector", ["NixlConnector", "NixlPushConnector"])
@pytest.mark.parametrize("ahead", [True, False])
def test_every_request_is_handed_over(connector: str, ahead: bool) -> None:
    """Also where posting takes longer than requests take to come, and where steps are decided one at a time."""
    run = simulate(
        load(
            "disagg",
            [NIXL, "deployment.link.post_us=20", f"deployment.link.connector={connector}", "workload.requests=60",
             f"engine.async_scheduling={str(ahead).lower()}", "workload.rate=20"],
        )
    )  # fmt: skip
    rows = run.requests
    assert rows["error"].isna().all()
    assert (rows["transfer_start_s"] <= rows["transfer_end_s"]).all()
    assert (rows["transfer_end_s"] <= rows["first_token_s"]).all()


def test_a_way_that_the_link_knows_goes_over_the_profiles_estimate() -> None:
    known = HandOver(way_s=0.004, way_per_token_s=1e-6)
    assert known.way(1000, 0.002) == pytest.approx(0.005)
    assert HandOver().way(1000, 0.002) == 0.002


def test_a_transfer_lasts_from_its_admission_in_both_tables() -> None:
    """As where vLLM is watched: posting is part of it, so that a simulated and a live link are equally busy."""
    run = simulate(load("disagg", [*PAIR, NIXL]))
    both = run.transfers.merge(run.requests, on="request_id")
    assert len(both) == 300
    assert (both["start_s"] == both["transfer_start_s"]).all()
    assert (both["end_s"] - both["start_s"]).min() > 12_000 * 3.2e-6


def test_cross_layer_blocks_reach_the_servers() -> None:
    config = connector_config(load("disagg", ["deployment.link.cross_layer_blocks=true"]).deployment.link)  # type: ignore[union-attr]
    assert config["kv_connector_extra_config"] == {"enable_cross_layers_blocks": "True"}


# --- what posting holds back ---------------------------------------------------------------------------


def _summary(*keys: str) -> Summary:
    return summarise(simulate(load("disagg", list(keys))))


def test_the_share_of_posting_is_descriptors_times_their_price() -> None:
    found = _summary("workload.rate=10").posting
    assert found is not None
    assert found.role == "decode"
    assert found.descriptors == 188 * 32 * 2
    assert found.share == pytest.approx(10 * 188 * 64 * 3.2e-6, rel=0.05)
    pushed = _summary("workload.rate=10", "deployment.link.connector=NixlPushConnector").posting
    assert pushed is not None
    assert pushed.role == "prefill"


@pytest.mark.parametrize("key", ["deployment.link.preset=nvlink", "optimizations.transfer.layerwise={}"])
def test_no_share_where_the_price_is_not_known(key: str) -> None:
    assert _summary(key).posting is None


def test_a_posting_worker_is_named_as_the_bottleneck() -> None:
    found = explain(_summary("workload.rate=10", "slo.ttft_ms=2000", "slo.tpot_ms=8"))
    assert (found.kind, found.where) == ("hand-over", "decode")
    assert "12,032 descriptors a prompt" in found.text
    assert "With engine.block_size 128" in found.text
    large = explain(_summary("workload.rate=10", "slo.ttft_ms=2000", "slo.tpot_ms=8", "engine.block_size=128"))
    assert large.kind != "hand-over"


def test_load_is_the_share_of_a_pools_own_highest_rate() -> None:
    """Busy says that some step runs; load grows with the rate and is near 1 where the pool ends."""
    few, more = (_summary(f"workload.rate={rate}")["decode_load"] for rate in (3, 6))
    assert few is not None
    assert more is not None
    assert more == pytest.approx(2 * few, rel=0.1)
    full = _summary("workload.rate=40")
    assert max(full.number("prefill_load"), full.number("decode_load")) == pytest.approx(1.0, abs=0.15)
