"""Every knob of `optimizations`: a case where it helps, one where it does nothing or hurts, and off it is not there."""

from __future__ import annotations

import pytest

from knob_cases import AGG, NVLINK, PD, effect, run, summary
from planner.engine.law import StepLaw
from planner.engine.step_time import AffineStep
from planner.routing import Query, RouterState, WorkerLoad, topology_aware
from planner.run.metrics import summarise
from planner.spec import SpecError, parse
from planner.spec.optimizations import Optimizations
from planner.system.knobs import MicroBatches, Resident, TwoStreams, pairs, selected_pairs
from planner.system.resolve import resolve
from simulator.clock import Clock
from simulator.fabric import Fabric
from simulator.host_memory import HostMemory


def test_off_is_off() -> None:
    plain, explicit = run(PD), run(PD, "optimizations={prefill: {}, transfer: {}, decode: {}}")
    assert plain.requests.equals(explicit.requests)
    assert Optimizations().changes_output == ()
    limits = resolve(parse(PD)).pools[0].limits
    assert HostMemory.of(limits) is None


# --- KV transfer ------------------------------------------------------------------------------------


def test_staged_copies_cost_two_pcie_copies_and_queue_there() -> None:
    """H200: 64 GB/s nominal, 0.8 of it usable; 3,000 tokens are 188 blocks of 2 MiB."""
    direct, staged = (run(PD, NVLINK, f"optimizations.transfer.staging={how}") for how in ("zero_copy", "host"))
    copy_s = 188 * 16 * 131072 / (64e9 * 0.8)
    alone = (staged.transfers["end_s"] - staged.transfers["start_s"]).min()
    before = (direct.transfers["end_s"] - direct.transfers["start_s"]).min()
    assert alone - before == pytest.approx(2 * copy_s, rel=0.01)
    assert effect(PD, "ttft_mean_ms", (NVLINK,), "transfer.staging=host") > 1.05
    busy = effect(PD, "ttft_mean_ms", (), "transfer.staging=host")  # beside a slow wire it hardly shows
    assert 1.0 < busy < 1.05


@pytest.mark.parametrize(("sends", "takes"), [(2, 1), (1, 2)])
def test_every_stage_of_a_transfer_is_as_wide_as_its_worker_has_gpus(sends: int, takes: int) -> None:
    """Down PCIe, over the wire, up PCIe; the codecs around all. Alone, one stage after the other."""
    sizes = f"deployment={{mode: disaggregated, prefill: {{tp: {sends}}}, decode: {{tp: {takes}}}}}"
    knobs = "optimizations.transfer={staging: host, compression: {queue: 0, compress_gb_s: 30, expand_gb_s: 20}}"
    system = resolve(parse(PD, overrides=["profile=null", sizes, NVLINK, "deployment.link.setup_us=300", knobs]))
    clock, ends = Clock(), []
    fabric = Fabric(system, clock)
    (source,), (target,) = (pool.workers for pool in system.pools)
    sent = []
    clock.at(5.0, lambda now: sent.append(fabric.send(source, target, 10**9, now, ends.append)))
    clock.run()
    [(_, packed)] = sent
    codec = system.spec.optimizations.transfer.compression
    assert codec is not None
    assert packed == int(10**9 / codec.ratio)
    over = system.wires.intra_node if system.wires else None
    assert over is not None
    pcie_s = packed / (64e9 * 0.8 * sends) + packed / (64e9 * 0.8 * takes)
    codec_s = 1e9 / (30e9 * sends) + 1e9 / (20e9 * takes)
    wire_s = 300e-6 + packed / (over.bandwidth * min(sends, takes)) + over.latency_s
    assert ends == [pytest.approx(5.0 + codec_s + pcie_s + wire_s, abs=1e-9)]


def test_compression_helps_a_slow_wire_and_costs_on_a_fast_one() -> None:
    always = "transfer.compression={queue: 0}"
    assert effect(PD, "ttft_mean_ms", (), always) < 0.85
    slow_codec = "transfer.compression={queue: 0, compress_gb_s: 20, expand_gb_s: 20}"
    assert effect(PD, "ttft_mean_ms", (NVLINK,), slow_codec) > 1.02


def test_compression_waits_until_the_wire_queues() -> None:
    """Alone on the wire nothing is compressed: bytes and times are those without the knob."""
    alone = ("workload={kind: constant, rate: 0.5, requests: 10, prompt_tokens: 3000, output_tokens: 50}",)
    plain, knob = run(PD, *alone), run(PD, *alone, "optimizations.transfer.compression={}")
    assert plain.transfers.equals(knob.transfers)
    burst = ("workload={kind: constant, rate: 50, requests: 10, prompt_tokens: 3000, output_tokens: 50}",)
    sizes = run(PD, *burst, "optimizations.transfer.compression={}").transfers["bytes"]
    assert sizes.max() == 2 * sizes.min()  # some were compressed, some were not


def test_layers_leave_before_the_prefill_ends_and_arrive_earlier() -> None:
    plain, layered = run(PD), run(PD, "optimizations.transfer.layerwise={}")
    requests = layered.requests.set_index("request_id")
    moves = layered.transfers.set_index("request_id")
    assert (moves["start_s"] < requests["prefill_end_s"][moves.index]).all()
    assert (moves["start_s"] > requests["prefill_start_s"][moves.index]).all()  # nothing before it is computed
    assert (requests["transfer_start_s"] >= requests["prefill_end_s"]).all()  # only what is exposed counts
    assert layered.transfers["bytes"].sum() == plain.transfers["bytes"].sum()
    even = ("deployment.link={bandwidth_gb_s: 6}",)  # a transfer takes as long as a prefill
    assert effect(PD, "ttft_mean_ms", even, "transfer.layerwise={}") < 0.75


def test_layers_change_little_on_a_fast_wire_and_cannot_widen_a_full_one() -> None:
    assert effect(PD, "ttft_mean_ms", (NVLINK,), "transfer.layerwise={}") == pytest.approx(1.0, abs=0.03)
    full = ("workload.rate=12",)  # 12 * 394 MB/s, four times what the wire carries
    rate = effect(PD, "requests_per_s", full, "transfer.layerwise={}")
    assert rate == pytest.approx(1.0, abs=0.03)


def test_layerwise_survives_preemption_of_prompts() -> None:
    tight = ("engine.num_gpu_blocks_override=600", "workload.rate=6", "engine.scheduler_reserve_full_isl=false")
    done = run(PD, *tight, "optimizations.transfer.layerwise={}")
    assert set(done.requests["finish_reason"]) == {"length"}
    assert len(done.transfers) == len(done.requests)


NODES = """
deployment:
  mode: disaggregated
  prefill: {replicas: 2, placement: spread}
  decode: {replicas: 2, placement: spread}
  link: {preset: nvlink, inter_node: {preset: ethernet_10g}}
  router: {policy: random}
cluster: {nodes: [{name: a, gpus: 2}, {name: b, gpus: 2}]}
"""
TWO_NODES = PD.replace("deployment: {mode: disaggregated, link: {preset: ethernet_10g}}\n", NODES)
TOPOLOGY = "deployment.router.policy=topology_aware"


def test_a_topology_aware_router_saves_bytes_between_nodes_and_says_how_many() -> None:
    blind, aware = run(TWO_NODES), run(TWO_NODES, TOPOLOGY)
    crossed = aware.manifest["cross_node"]
    assert blind.manifest["cross_node"]["bytes"] > 5 * crossed["bytes"]
    assert crossed["saved_bytes"] == crossed["blind_bytes"] - crossed["bytes"] > 0
    assert summarise(aware).number("ttft_mean_ms") < 0.8 * summarise(blind).number("ttft_mean_ms")


def test_placement_decides_whether_there_is_anything_to_save() -> None:
    """Packed, all prefill workers stand on one node and all decode workers on the other: every byte crosses."""
    packed = ("deployment.prefill.placement=pack", "deployment.decode.placement=pack", TOPOLOGY)
    assert run(TWO_NODES, *packed).manifest["cross_node"]["saved_bytes"] == 0
    assert "cross_node" not in run(PD).manifest  # one node


def test_a_near_worker_is_left_when_it_has_too_many_requests() -> None:
    import random

    workers = [WorkerLoad("near", running=4), WorkerLoad("far", running=1)]
    query = Query(0, 100, 16, (0, 0), (0.001, 1.0))
    assert topology_aware(query, workers, RouterState(random.Random(0))) == 1
    workers[0].running = 3
    assert topology_aware(query, workers, RouterState(random.Random(0))) == 0
    nowhere = Query(0, 100, 16, (0, 0))
    assert topology_aware(nowhere, workers, RouterState(random.Random(0))) == 1  # least loaded


def test_fp8_kv_halves_the_bytes_moved_and_doubles_the_blocks() -> None:
    plain, small = run(PD), run(PD, "engine.kv_cache_dtype=fp8")
    assert small.transfers["bytes"].sum() * 2 == plain.transfers["bytes"].sum()
    assert effect_of_fp8(()) < 0.8
    assert effect_of_fp8((NVLINK,)) == pytest.approx(1.0, abs=0.02)


def effect_of_fp8(base: tuple[str, ...]) -> float:
    fp8 = "engine.kv_cache_dtype=fp8"
    return summary(PD, *base, fp8).number("ttft_mean_ms") / summary(PD, *base).number("ttft_mean_ms")


# --- prefill ----------------------------------------------------------------------------------------


def test_selected_pairs_are_counted_as_a_loop_counts_them() -> None:
    for new, done, keys in ((10, 0, 100), (100, 0, 10), (50, 80, 100), (20, 200, 100)):
        loop = sum(min(done + index + 0.5, keys) for index in range(new))
        assert selected_pairs(new, done, keys) == pytest.approx(loop, rel=0.01)
        assert selected_pairs(new, done, keys) <= pairs(new, done)


def test_sparse_attention_helps_long_prompts_and_costs_short_ones() -> None:
    long = ("workload={kind: constant, rate: 0.05, requests: 3, prompt_tokens: 60000, output_tokens: 5}",)
    assert effect(AGG, "ttft_mean_ms", long, "prefill.sparse_attention={}") < 0.6
    short = ("workload.prompt_tokens=1500",)  # all keys are kept, and the indexer looks at all of them
    assert 1.0 < effect(AGG, "ttft_mean_ms", short, "prefill.sparse_attention={}") < 1.02
    warned = resolve(parse(AGG, overrides=["optimizations.prefill.sparse_attention={}"])).warnings
    assert any("changes what the model answers" in text for text in warned)


LAW = StepLaw(
    decode_s=5e-3, decode_per_seq_s=2e-5, decode_per_context_s=3e-8, prefill_floor_s=8e-3, prefill_s=2e-3,
    prefill_per_token_s=2e-5, prefill_per_pair_s=0.0, mixed_per_seq_s=5e-5, mixed_per_context_s=3e-8,
)  # fmt: skip


def test_two_streams_win_when_decodes_are_long_and_lose_when_prompts_are() -> None:
    """The step is the longer of the two, each on its part of the GPU: exact, by hand."""
    step = AffineStep(LAW)
    streams = TwoStreams(step, decode_share=0.3, bandwidth_share=0.4)
    assert streams.mixed([(500, 0)], 64, 500_000) == pytest.approx(21.28e-3 / 0.75)
    balanced = streams.mixed([(1000, 0)], 64, 300_000)
    assert balanced < step.mixed([(1000, 0)], 64, 300_000) < balanced * 1.3
    assert streams.mixed([(8000, 0)], 8, 8000) > 1.3 * step.mixed([(8000, 0)], 8, 8000)
    assert streams.mixed([(1000, 0)], 0, 0) == step.mixed([(1000, 0)], 0, 0)
    assert streams.decode(8) == step.decode(8)


def test_streams_do_nothing_where_prompts_and_decodes_never_share_a_step() -> None:
    first = ("engine.scheduler=prefill_first", "engine.max_model_len=4096", "engine.max_num_batched_tokens=4096")
    assert effect(AGG, "ttft_mean_ms", first, "prefill.streams={}") == 1.0


RETRIEVAL = PD.replace("deployment:", "retrieval: {at: prefill_worker, search_ms: 150, workers: 1}\ndeployment:")


def test_prefetched_retrieval_hides_behind_the_prefill_of_another() -> None:
    rag = RETRIEVAL.replace("workload: {kind: poisson", "workload: {kind: poisson")
    shared = ("deployment.router={policy: round_robin, prefill_dispatch: shared_queue}", NVLINK, "workload.rate=6")
    assert effect(rag, "requests_per_s", shared, "prefill.prefetch_retrieval=true") > 1.2
    push = ("deployment.router={policy: round_robin}", NVLINK, "workload.rate=4")
    assert effect(rag, "ttft_mean_ms", push, "prefill.prefetch_retrieval=true") == 1.0  # it never waited
    nothing = ("deployment.router={policy: round_robin, prefill_dispatch: shared_queue}", "workload.rate=20")
    assert effect(PD, "ttft_mean_ms", nothing, "prefill.prefetch_retrieval=true") == 1.0  # nothing is retrieved


# --- decode -----------------------------------------------------------------------------------------


def test_micro_batches_read_the_weights_again_and_hide_all_reduces() -> None:
    step = AffineStep(LAW)
    assert MicroBatches(step, 2, 0.0, 32).decode(64)[0] == pytest.approx(2 * step.decode(32)[0])
    wide = AffineStep(LAW.model_copy(update={"decode_s": 1.5e-3, "decode_per_seq_s": 1e-5}))  # 1 ms of it all-reduces
    hidden = MicroBatches(wide, 2, 1e-3, 32).decode(1000)[0]
    assert hidden == pytest.approx(2 * (0.5e-3 + 5e-3) + 1e-3 / 32)
    assert hidden < wide.decode(1000)[0]
    assert MicroBatches(wide, 2, 1e-3, 32).decode(1) == wide.decode(1)
    assert effect(AGG, "tpot_mean_ms", (), "decode.micro_batches=2") > 1.5  # one GPU: nothing to hide


def test_persistent_kernels_shorten_decodes_and_slow_prompts_beside_them() -> None:
    step = AffineStep(LAW)
    resident = Resident(step, 1e-3, 3e-3, 0.1)
    assert resident.decode(8)[0] == pytest.approx(step.decode(8)[0] - 1e-3)
    assert Resident(step, 1.0, 3e-3, 0.1).decode(8)[0] == 3e-3  # never below reading the weights
    assert effect(PD, "tpot_mean_ms", (NVLINK,), "decode.persistent={}") < 0.9
    assert effect(AGG, "ttft_mean_ms", (), "decode.persistent={}") > 1.05
    assert effect(PD, "ttft_mean_ms", (NVLINK,), "decode.persistent={}") < 1.0  # the prefill pool keeps its GPU


def test_eager_steps_are_slower_where_launching_is_the_bound_and_the_same_where_it_is_not() -> None:
    small = summary(AGG, "engine.enforce_eager=true").number("tpot_mean_ms")
    assert small > 1.3 * summary(AGG).number("tpot_mean_ms")
    slow = ("hardware=l4", "profile=null", "workload.rate=0.5")  # reading the weights takes longer than launching
    eager = summary(AGG, *slow, "engine.enforce_eager=true").number("tpot_mean_ms")
    assert eager == pytest.approx(summary(AGG, *slow).number("tpot_mean_ms"), rel=0.08)


# --- separation -------------------------------------------------------------------------------------

SWITCH = PD.replace("{mode: disaggregated, link: {preset: ethernet_10g}}",
                    "{mode: disaggregated, decode: {replicas: 3}, link: {preset: nvlink}}")  # fmt: skip


def test_a_lent_decode_worker_relieves_prefill_unless_it_takes_too_long() -> None:
    burst = ("workload.rate=25", "workload.requests=400")
    quick = "separation.role_switch={queue: 4, check_every_s: 0.2, delay_s: 0.5}"
    assert effect(SWITCH, "ttft_mean_ms", burst, quick) < 0.8
    late = "separation.role_switch={queue: 4, check_every_s: 0.2, delay_s: 1000}"
    assert effect(SWITCH, "ttft_mean_ms", burst, late) >= 0.99
    calm = ("workload.rate=2",)
    assert effect(SWITCH, "ttft_mean_ms", calm, quick) == 1.0
    done = run(SWITCH, *burst, f"optimizations.{quick}")
    assert set(done.requests["finish_reason"]) == {"length"}
    assert len(set(done.requests["worker"])) > 1


def test_local_prefill_spares_short_prompts_a_slow_wire_and_long_ones_disturb_decodes() -> None:
    always = "deployment.local_prefill.max_tokens=4000"
    short = ("workload.prompt_tokens=400",)
    assert summary(PD, *short, always).number("ttft_mean_ms") < 0.6 * summary(PD, *short).number("ttft_mean_ms")
    long = (NVLINK, "workload.rate=6")
    plain, local = summary(PD, *long), summary(PD, *long, always)
    assert local.number("tpot_p90_ms") > 1.5 * plain.number("tpot_p90_ms")
    never = summary(PD, *short, "deployment.local_prefill.max_tokens=100")
    assert never.number("ttft_mean_ms") == summary(PD, *short).number("ttft_mean_ms")  # no prompt is as short


def test_engine_switches_help_and_cost() -> None:
    """Prefix caching needs equal beginnings; chunks let decodes go on beside long prompts, which then take longer."""
    off = "engine.enable_prefix_caching=false"
    shared = ("workload.shared_prefix_tokens=2000", "workload.rate=4")
    assert summary(AGG, *shared, off).number("ttft_mean_ms") > 1.5 * summary(AGG, *shared).number("ttft_mean_ms")
    assert run(AGG).requests.equals(run(AGG, off).requests)  # nothing is shared
    mixed = ("workload.prompt_tokens=12000", "workload.rate=1", "workload.output_tokens=200")
    small, large = (summary(AGG, *mixed, f"engine.max_num_batched_tokens={budget}") for budget in (2048, 16384))
    assert small.number("itl_p99_ms") < 0.5 * large.number("itl_p99_ms")
    assert small.number("ttft_mean_ms") > large.number("ttft_mean_ms")


RACKS = TWO_NODES.replace("cluster: {nodes: [{name: a, gpus: 2}, {name: b, gpus: 2}]}",
    "cluster: {nodes: [{name: a, gpus: 1}, {name: c, gpus: 1, rack: r1}, {name: b, gpus: 1}, "
    "{name: d, gpus: 1, rack: r1}]}").replace("inter_node: {preset: ethernet_10g}",
    "inter_node: {preset: ib_400}, inter_rack: {preset: ethernet_10g}")  # fmt: skip


def test_racks_are_distances_too() -> None:
    """A prefill worker in each rack: KV that stays in its rack takes InfiniBand, KV that leaves it slow Ethernet."""
    assert all(len({place.rack for place in pool.workers}) == 2 for pool in resolve(parse(RACKS)).pools)
    blind, aware = run(RACKS), run(RACKS, TOPOLOGY)
    slow = [moved.transfers["link"].eq("ethernet_10g").mean() for moved in (blind, aware)]
    assert slow[0] > 0.3
    assert slow[1] < 0.5 * slow[0]


def test_suggest_and_intervals_keep_the_knobs() -> None:
    """Both make profiles anew: scaled to another TP size, or drawn from the fit."""
    from planner.validation.intervals import prediction_intervals

    base = ("deployment.tp=2", "profile=h200-llama-3.1-8b-tp1")
    steps = [
        resolve(parse(AGG, overrides=[*base, *knob])).pools[0].profile.step.decode(8)[0]
        for knob in ((), ("optimizations.decode.persistent={removed_ms: 0.5}",))
    ]
    assert steps[0] - steps[1] == pytest.approx(0.5e-3)
    few = ("workload.requests=20", NVLINK)
    plain, knob = (
        prediction_intervals(parse(PD, overrides=[*few, *more]), ["tpot_mean_ms"], draws=4)["tpot_mean_ms"]
        for more in ((), ("optimizations.decode.persistent={removed_ms: 2}",))
    )
    assert knob.high < plain.low


# --- live -------------------------------------------------------------------------------------------


def test_knobs_with_a_real_switch_reach_vllm_and_the_others_are_refused() -> None:
    knobs = pytest.importorskip("live.knobs")
    offload = "optimizations.decode.offload=[{capacity_gb: 8}]"
    assert knobs.options(resolve(parse(AGG))) == []
    system = resolve(parse(AGG, overrides=[offload]))
    knobs.check(system, "gpu")
    with pytest.raises(SpecError, match="needs a GPU"):
        knobs.check(system, "cpu")
    assert knobs.options(system) == ["--kv-offloading-size=7.451", "--kv-offloading-backend=native"]
    for override in (
        "prefill.streams={}",
        "decode.preemption=swap",
        "decode.offload=[{capacity_gb: 1}, {capacity_gb: 9}]",
    ):
        with pytest.raises(SpecError, match="only the simulator has it"):
            knobs.check(resolve(parse(AGG, overrides=[f"optimizations.{override}"])), "gpu")
    with pytest.raises(SpecError, match="only the simulator has it"):
        knobs.check(resolve(parse(PD, overrides=[offload])), "gpu")


# --- what cannot be ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("optimizations.decode.micro_batches=0", "optimizations.decode.micro_batches"),
        ("optimizations.transfer.compression={ratio: 1}", "ratio"),
        ("optimizations.transfer.zero=true", "zero"),
        ("optimizations.prefill.streams={decode_sm_share: 1}", "decode_sm_share"),
    ],
)
def test_impossible_knobs_are_refused(override: str, part: str) -> None:
    with pytest.raises(SpecError, match="allowed") as caught:
        parse(PD, overrides=[override])
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_knobs_that_cannot_work_here_are_refused_or_warned_of() -> None:
    chosen = ["optimizations.separation.role_switch={}", "deployment.router.decode_choice=at_arrival"]
    with pytest.raises(SpecError, match="after_prefill"):
        resolve(parse(PD, overrides=chosen))
    warned = resolve(parse(AGG, overrides=["optimizations.transfer.layerwise={}"])).warnings
    assert any("nothing to do in an aggregated deployment" in text for text in warned)
