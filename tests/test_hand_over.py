"""What posting a hand-over costs, and whom: the measured pair's figures are in configs/links/nvlink_nixl.yaml."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner import load, simulate, summarise
from planner.backends import backend
from planner.engine.profile_file import ProfileFile
from planner.report.explain import explain
from planner.report.printing import value_table
from planner.report.words import number
from planner.run.metrics import Summary
from planner.run.tables import Run
from planner.system.hand_over import ALONE, HandOver, move_work, post_work
from planner.system.resolve import resolve
from planner.system.wires import connector_config
from planner.traffic import workload

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


def test_one_thread_posts_few_pieces_more_slowly_than_four_post_more() -> None:
    """Measured: steps that post 960 pieces take in results after 13.1 ms, those that post 1,280 after 8.5."""
    assert post_work(960) > 1.5 * post_work(1280)
    assert post_work(100, behind=True) == post_work(100) == ALONE * 100
    assert post_work(4096) < 0.7 * 4096 < 4096 == post_work(4096, behind=True)  # there is room for them but once
    assert [post_work(n) for n in (1024, 8192, 65536)] == [1500.0, 7900.0, 67000.0]
    assert post_work(131072) == pytest.approx(2 * 67000, rel=0.01)
    assert (move_work(8192), move_work(10192)) == pytest.approx((8192, 10412))


def test_shorter_prompts_may_hold_up_decodes_longer() -> None:
    """Foretold, then measured: TPOT p50 5.5 ms with prompts of 240 tokens, 5.3 with 320."""
    few, more = (figures(NIXL, "workload.rate=12", f"workload.prompt_tokens={tokens}")[1] for tokens in (240, 320))
    assert few > 1.03 * more


def test_larger_pieces_take_what_their_bytes_add() -> None:
    """A piece takes as long on the wire whatever its size, but for more bytes; a wire that the spec gives stays."""
    wires = [resolve(load("disagg", [NIXL, *keys])).wires for keys in ([], ["engine.block_size=64"])]
    small, large = (wire.intra_node.bandwidth for wire in wires if wire is not None)
    added = 4 * 32768 / large - 32768 / small
    assert added == pytest.approx(3 * 32768 / (0.5 * 450e9))
    given = resolve(load("disagg", [NIXL, "engine.block_size=64", "deployment.link.bandwidth_gb_s=88"])).wires
    assert given is not None
    assert given.intra_node.bandwidth == 88e9


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
    assert found.share == pytest.approx(10 * 188 * 64 * 3.38e-6, rel=0.05)
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


def test_a_load_above_the_whole_is_said_as_what_it_is() -> None:
    """What decodes at twice the rate at which TPOT would be met is no share of anything in use."""
    summary = _summary("workload.rate=10", "slo.tpot_ms=6")
    load = summary.number("decode_load")
    assert load > 1.5
    rows = dict(value_table(summary, "", ["decode_load", "prefill_load"]).rows)
    assert rows["Decode load"] == f"{number(load)} x its rate within TPOT"
    assert rows["Prefill load"].endswith(" %")


# --- what else a hand-over costs -----------------------------------------------------------------------------------


def _times(*keys: str, **hand_over: float) -> Run:
    """1P1D under 10 req/s of 3000/100, with other figures of its hand-overs."""
    spec = load("disagg", [*PAIR, NIXL, *keys])
    system = resolve(spec)
    assert system.wires is not None
    changed = replace(system.wires, hand_over=replace(system.wires.hand_over, **hand_over))
    return backend("simulate").run(replace(system, wires=changed), workload.build(spec))


def _mean(run: Run, end: str, begin: str) -> float:
    return float((run.requests[end] - run.requests[begin]).mean())


def test_transfers_slow_the_prompts_of_the_gpu_that_they_read_from() -> None:
    """Measured: 203 to 209 ms for 8,000 tokens beside a transfer, 194 without. Where warmth is known it says why."""
    cool = "profile=h200-llama-3.1-8b-tp1"
    free, slowed = _times(cool, slowing=1.0), _times(cool, slowing=1.09)
    first = [run.requests["prefill_end_s"].iloc[0] for run in (free, slowed)]
    assert first[0] == first[1]  # nothing is read yet
    assert _mean(free, "prefill_end_s", "arrival_s") < 0.97 * _mean(slowed, "prefill_end_s", "arrival_s")


def test_with_push_a_transfer_is_over_once_the_worker_that_writes_has_launched_a_step() -> None:
    """Measured: 56 ms beside no step (blocks of 16), 83 at the median under load, however short the posts are."""
    push = "deployment.link.connector=NixlPushConnector"
    lone = _mean(_times(push, "workload.requests=1"), "transfer_end_s", "transfer_start_s")
    assert lone == pytest.approx(12_032 * 3.29e-6, rel=0.2)
    run = _times(push, slowing=1.0)
    steps = run.steps[run.steps["worker"] == "prefill-0"].sort_values("start_s")
    begins, ends = steps["start_s"].to_numpy(), (steps["start_s"] + steps["duration_s"]).to_numpy()
    launch_s = resolve(load("disagg", [NIXL])).pools[0].profile.step.launch(3000, 0)
    within = 0
    for end_s in run.transfers["end_s"]:
        beside = (begins < end_s - 1e-6) & (end_s + 1e-6 < ends)
        if beside.any():  # in a step: not later than its launch has taken, on an uneven host
            within += 1
            assert end_s - begins[beside][0] < 2.2 * launch_s
    assert within > 20


def test_pull_posts_more_slowly_while_the_gpu_that_it_reads_from_computes() -> None:
    """Measured: 3.29 us a descriptor, 1.06 times as long beside a prompt. A lone request has nothing beside it."""
    one = "workload.requests=1"
    alone = [_mean(_times(one, pull_beside=times), "first_token_s", "arrival_s") for times in (1.0, 1.5)]
    assert alone[0] == alone[1]
    quiet, busy = (_mean(_times(pull_beside=times), "transfer_end_s", "transfer_start_s") for times in (1.0, 1.5))
    assert 1.2 < busy / quiet < 3


def test_posts_wait_for_no_more_than_the_step_beside_them() -> None:
    """However slow they are in it: they are as quick as alone once it has ended."""
    run = _times("workload.rate=2", "workload.requests=60", pull_beside=1000.0)
    took = run.transfers["end_s"] - run.transfers["start_s"]
    alone_s, longest_s = took.min(), run.steps.loc[run.steps["worker"] == "prefill-0", "duration_s"].max()
    assert 2 * alone_s < took.max() < 2 * (alone_s + longest_s)


def test_engines_with_a_connector_have_decode_steps_of_their_own() -> None:
    """Those of a measured pair differ from those of replicas on the same host, as its profile says."""
    named = "profile=h200x2-llama-3.1-8b-tp1"
    alone = resolve(load("disagg", [named, "deployment={mode: aggregated, replicas: 2}"])).pools[0].profile
    paired = resolve(load("disagg", [named])).pools[1].profile
    assert alone.file is not None
    assert paired.file is not None
    known = alone.file.connected
    assert known is not None
    assert paired.file.step == alone.file.step.model_copy(update=known)
    assert paired.step.decode(1)[0] < alone.step.decode(1)[0]
    with pytest.raises(ValueError, match="unknown terms decode; allowed: terms of a step"):
        ProfileFile.model_validate(alone.file.model_dump() | {"schema": 1, "connected": {"decode": 1.0}})


def test_a_running_engine_hears_of_its_kv_with_the_results_of_a_later_step() -> None:
    """The step that is launched next asks, one more runs before the scheduler hears of it: measured 2.5 to 4 steps."""
    run = _times()
    waited = run.requests["decode_start_s"] - run.requests["transfer_end_s"]
    step_s = 5e-3
    assert waited.median() > 2 * step_s
    assert waited.quantile(0.05) < 6 * step_s


def test_an_idle_engine_looks_now_and_then() -> None:
    one = ["workload.requests=1"]
    late, soon = _times(*one, idle_look_s=0.05), _times(*one, idle_look_s=0.0)
    assert _mean(late, "first_token_s", "arrival_s") == pytest.approx(
        _mean(soon, "first_token_s", "arrival_s") + 0.05, abs=1e-9
    )
