"""Looking everything up: vLLM's defaults, memory, placement, wires, presets, and one line for what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.engine.catalogue import hardware
from planner.engine.model_config import load_model, model_config
from planner.engine.profiles import load_profile
from planner.engine.provenance import origin
from planner.engine.setup import Setup
from planner.engine.tp_scaling import is_scaled, with_types
from planner.spec import Disaggregated, Engine, LocalPrefill, SpecError, config_root, load, parse
from planner.system.placement import Demand, place_freely
from planner.system.resolve import ROUTER_PRESETS, EngineLimits, System, resolve
from spoken import whole

AGG = "name: a\ndeployment: {mode: aggregated}\n"


def agg(deployment: str = "", rest: str = "") -> System:
    return resolve(parse(f"name: a\ndeployment: {{mode: aggregated, {deployment}}}\n{rest}"))


def disagg(deployment: str = "", rest: str = "") -> System:
    return resolve(parse(f"name: a\ndeployment: {{mode: disaggregated, {deployment}}}\n{rest}"))


def limits(rest: str) -> EngineLimits:
    return agg(rest=rest).pools[0].limits


# --- engine limits -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(path.stem for path in config_root().glob("*.yaml")))
def test_every_shipped_config_resolves(name: str) -> None:
    system = resolve(load(name))
    assert all(pool.limits.kv_blocks * pool.limits.block_size >= pool.limits.max_model_len for pool in system.pools)
    assert system.gpus == sum(len(worker.gpus) for pool in system.pools for worker in pool.workers)


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("", (8192, 1024, 16, True)),
        ("hardware: b200", (16384, 1024, 16, True)),
        ("hardware: a100-80g", (2048, 256, 16, True)),
        ("hardware: l4", (2048, 256, 16, True)),
        ("hardware: cpu\nmodel: tiny", (2048, 128, 128, False)),
        ("engine: {max_num_batched_tokens: 512}", (512, 512, 16, True)),
        ("engine: {max_num_seqs: 4, block_size: 32, async_scheduling: false}", (8192, 4, 32, False)),
        # Without chunks a step must take a whole prompt; few short requests cannot fill the default budget.
        ("engine: {enable_chunked_prefill: false, max_model_len: 20000}", (20000, 1024, 16, True)),
        ("engine: {max_num_seqs: 2, max_model_len: 2000}", (4000, 2, 16, True)),
    ],
)
def test_vllm_defaults(rest: str, expected: tuple[int, int, int, bool]) -> None:
    found = limits(rest)
    batch = (found.max_num_batched_tokens, found.max_num_seqs, found.block_size, found.async_scheduling)
    assert batch == expected


def test_measured_blocks_come_from_the_profile() -> None:
    found = limits("profile: h200-llama-3.1-8b-tp1")
    assert found.kv_blocks == 919_824 // 16 - 1  # less the null block
    twin = "profile: h200-llama-3.1-8b-tp1\nmodel: deepseek-r1-distill-llama-8b"
    assert limits(twin).kv_blocks == found.kv_blocks
    other = limits("profile: h200-llama-3.1-8b-tp1\nengine: {gpu_memory_utilization: 0.8}")
    assert other.kv_blocks < 0.9 * found.kv_blocks  # not measured at 0.8: estimated


@pytest.mark.parametrize(
    ("rest", "measured"),
    [
        ("engine: {max_num_batched_tokens: 8192}", 57_489),  # vllm serve
        ("engine: {max_num_batched_tokens: 16384, max_num_seqs: 256}", 57_144),  # in process
    ],
)
def test_estimated_blocks_are_near_those_of_a_real_h200(rest: str, measured: int) -> None:
    assert limits(rest).kv_blocks + 1 == pytest.approx(measured, rel=0.001)


def test_blocks_follow_what_the_engine_says() -> None:
    assert limits("engine: {num_gpu_blocks_override: 1000}").kv_blocks == 999
    assert limits("engine: {kv_cache_memory_bytes: 2147483648}").kv_blocks == 1023  # 2 MiB a block
    assert limits("engine: {kv_cache_memory_bytes: 2147483648, kv_cache_dtype: fp8}").kv_blocks == 2047
    assert limits("engine: {kv_cache_memory_bytes: 2147483648}").max_model_len == 1023 * 16
    assert limits("engine: {max_model_len: 9000}").max_model_len == 9000
    assert limits("engine: {watermark: 0.01, num_gpu_blocks_override: 1000}").watermark_blocks == 10
    assert limits("engine: {scheduler: prefill_first}").prefill_first
    assert limits("engine: {block_size: 48}").block_size == 48
    with pytest.raises(SpecError, match=r"^engine.block_size: 17 is no multiple of 16.* h200 needs; allowed: 32$"):
        limits("engine: {block_size: 17}")


def test_tp_splits_weights_and_kv() -> None:
    one, two = agg().pools[0].limits, agg("tp: 2").pools[0].limits
    assert two.kv_blocks > 2 * one.kv_blocks
    wide = agg("tp: 16, gpus_per_node: 16", "model: llama-3.1-70b").pools[0].limits
    narrow = agg("tp: 8", "model: llama-3.1-70b").pools[0].limits
    assert wide.kv_blocks < 1.2 * narrow.kv_blocks  # 8 KV heads: replicated at 16


def test_pools_override_the_top_level() -> None:
    system = disagg(
        "prefill: {hardware: h100, engine: {max_num_seqs: 8}}, decode: {router: {policy: random}}",
        "engine: {block_size: 32, max_num_seqs: 16}",
    )
    prefill, decode = system.pools
    assert (prefill.hardware.name, decode.hardware.name) == ("h100", "h200")
    assert (prefill.limits.max_num_seqs, decode.limits.max_num_seqs) == (8, 16)
    assert (prefill.limits.block_size, decode.limits.block_size) == (32, 32)
    assert (prefill.router.policy, decode.router.policy) == ("least_loaded", "random")


# --- warnings ----------------------------------------------------------------------------------------


def test_a_profile_of_something_else_is_warned_of() -> None:
    profile = "profile: h200-llama-3.1-8b-tp1\n"
    assert agg(rest=profile).warnings == ()
    assert agg(rest=profile + "model: deepseek-r1-distill-llama-8b").warnings == ()  # the same shape
    assert any("hardware h200, not h100" in line for line in agg(rest=profile + "hardware: h100").warnings)
    assert any("model llama-3.1-8b, not phi-4" in line for line in agg(rest=profile + "model: phi-4").warnings)
    assert any("measured at TP 1; TP 2 is scaled from it" in line for line in agg("tp: 2", profile).warnings)


def test_types_that_a_profile_does_not_cover_are_scaled_from_it() -> None:
    """What types change goes as the roofline does; launches and the host stay as they were measured."""
    served = "profile: h200-llama-3.1-8b-tp1-served\n"
    quantised = agg(rest=served + "engine: {quantization: fp8}")
    assert quantised.warnings == (
        "profile h200-llama-3.1-8b-tp1-served was measured with kv_cache_dtype auto, quantization none; "
        "kv_cache_dtype auto, quantization fp8 is scaled from it by the roofline",
    )
    profile, measured = quantised.pools[0].profile, agg(rest=served).pools[0].profile
    assert profile.file is not None and measured.file is not None
    assert is_scaled(profile.file) and not is_scaled(measured.file)
    assert origin([profile]) == (
        "not calibrated: h200-llama-3.1-8b-tp1-served-for-fp8, scaled by the roofline from what was measured"
    )
    law, old = profile.file.step, measured.file.step
    assert 0.5 * old.decode_s < law.decode_s < 0.7 * old.decode_s
    assert law.decode_tile_s > 0 and law.decode_tile_rows == 16
    assert (law.decode_per_context_s, law.launch_eager_s) == (old.decode_per_context_s, old.launch_eager_s)
    assert profile.host == measured.host
    two = agg("tp: 2", served + "engine: {quantization: fp8}").pools[0].profile
    assert two.file is not None and is_scaled(two.file)
    assert two.name == "h200-llama-3.1-8b-tp1-served-for-fp8-at-tp2"
    assert two.file.step.prefill_per_token_s < law.prefill_per_token_s
    assert agg(rest="engine: {quantization: fp8}").warnings == ()  # a roofline knows


def test_a_cpu_keeps_its_times_whatever_the_types() -> None:
    measured = load_profile("h200-llama-3.1-8b-tp1")
    for name, scaled in (("h200", True), ("cpu", False)):
        setup = Setup.of(load_model("llama-3.1-8b"), hardware(name), Engine(kv_cache_dtype="fp8"))
        assert (with_types(measured, setup) is not measured) == scaled


def test_a_quantised_checkpoint_is_not_what_a_plain_profile_measured(tmp_path: Path) -> None:
    quantised = {**model_config("llama-3.1-8b").config, "quantization_config": {"quant_method": "fp8"}}
    (tmp_path / "config.json").write_text(json.dumps(quantised))
    system = agg(rest=f"model: {tmp_path}\nprofile: h200-llama-3.1-8b-tp1")
    assert len(system.warnings) == 1 and "quantization fp8 is scaled from it by the roofline" in system.warnings[0]
    same = agg(rest="engine: {quantization: fp8}\nprofile: h200-llama-3.1-8b-tp1")
    assert system.pools[0].limits == same.pools[0].limits  # not the blocks that the plain model left room for


def test_a_group_of_quantised_weights_is_not_split(tmp_path: Path) -> None:
    changes = {"intermediate_size": 14400, "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 64}}
    (tmp_path / "config.json").write_text(json.dumps({**model_config("llama-3.1-8b").config, **changes}))
    with pytest.raises(SpecError) as caught:
        agg("tp: 8", f"model: {tmp_path}")
    assert str(caught.value) == (
        f"deployment.tp: 8 leaves 1800 of {tmp_path.name}'s intermediate size 14400 to a GPU, "
        "no multiple of its quantised groups of 64; allowed: 1"
    )


def test_a_profile_of_an_fp8_cache_is_for_that_cache() -> None:
    """Its count of blocks would be twice what a bf16 cache holds."""
    profile = "profile: h200-llama-3.1-8b-tp1-fp8-kv-served\n"
    same, other = agg(rest=profile + "engine: {kv_cache_dtype: fp8}"), agg(rest=profile)
    assert same.warnings == ()
    assert same.pools[0].limits.kv_blocks == 114945 - 1  # as the engine reported it, less the null block
    assert other.pools[0].limits.kv_blocks < 0.6 * same.pools[0].limits.kv_blocks
    assert other.warnings == (
        "profile h200-llama-3.1-8b-tp1-fp8-kv-served was measured with kv_cache_dtype fp8, quantization none; "
        "kv_cache_dtype auto, quantization none is scaled from it by the roofline",
    )
    assert other.pools[0].profile.name == "h200-llama-3.1-8b-tp1-fp8-kv-served-for-plain"


def hints(system: System) -> list[str]:
    return [line for line in system.warnings if "is calibrated on this model and GPU" in line]


@pytest.mark.parametrize(
    ("rest", "named"),
    [
        ("", "h200x2-llama-3.1-8b-tp1"),
        ("model: qwen3-30b-a3b", "h200-qwen3-30b-a3b-tp1-served"),
        ("profile: h200x2-llama-3.1-8b-tp1\nmodel: qwen3-1.7b", "h200-qwen3-1.7b-tp1-served"),  # of another model
        ("engine: {kv_cache_dtype: fp8}", "h200-llama-3.1-8b-tp1-fp8-kv-served"),
        ("model: meta-llama/Llama-3.1-8B-Instruct", "h200x2-llama-3.1-8b-tp1"),
    ],
)
def test_a_roofline_is_told_of_a_calibration_that_ships(rest: str, named: str) -> None:
    system = agg(rest=rest)
    assert system.pools[0].profile.provenance == "simulated"
    (line,) = hints(system)
    assert line.startswith(f"profile: step times here are the roofline's, though {named} is calibrated")
    assert f"--set profile={named} uses it" in line
    whole(line)
    taken = resolve(parse(f"name: a\ndeployment: {{mode: aggregated}}\n{rest}", "a", [f"profile={named}"]))
    assert (hints(taken), taken.pools[0].profile.provenance) == ([], "calibrated")


def test_a_calibration_that_ships_is_of_this_engine_and_wanted() -> None:
    assert hints(agg(rest="hardware: h100")) == []
    assert hints(agg(rest="model: qwen3-32b")) == []
    assert hints(agg(rest="profile: null")) == []
    assert "measured at TP 2;" in hints(agg("tp: 2"))[0]
    pools = "prefill: {hardware: h100, profile: null}, decode: {hardware: h200}"
    (line,) = hints(disagg(pools, "hardware: h100"))
    assert line.startswith("deployment.decode.profile: ")


def test_windows_are_warned_of() -> None:
    assert any("windows are not modelled" in line for line in agg(rest="model: mistral-7b-v0.1").warnings)
    short = "model: mistral-7b-v0.1\nengine: {max_model_len: 4096}"
    assert not any("windows" in line for line in agg(rest=short).warnings)


def test_an_assumed_link_between_nodes_is_warned_of() -> None:
    assert any("link.inter_node" in line for line in disagg("gpus_per_node: 1").warnings)
    given = disagg("gpus_per_node: 1, link: {inter_node: {preset: ib_200}}")
    assert not any("link.inter_node" in line for line in (*given.warnings, *disagg().warnings))


def test_hand_overs_that_nobody_measured_are_warned_of() -> None:
    (said,) = disagg("link: {preset: pcie4}", "profile: null").warnings
    assert "what a hand-over over pcie4 costs the workers was not measured and counts as nothing" in said
    assert disagg("link: {preset: nvlink_nixl}", "profile: null").warnings == ()
    assert disagg("link: {preset: pcie4, post_us: 3}", "profile: null").warnings == ()
    on_cpu = disagg("link: {preset: cpu_shm}", "hardware: cpu\nmodel: tiny").warnings
    assert not any("hand-over" in line for line in on_cpu)


# --- placement ---------------------------------------------------------------------------------------


def places(system: System) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(worker.name, worker.node, worker.gpus) for pool in system.pools for worker in pool.workers]


def test_workers_fill_as_few_nodes_as_needed() -> None:
    assert places(disagg("prefill: {replicas: 2}, decode: {tp: 2}, gpus_per_node: 4")) == [
        ("prefill-0", "node-0", (0,)),
        ("prefill-1", "node-0", (1,)),
        ("decode-0", "node-0", (2, 3)),
    ]
    assert places(disagg("prefill: {replicas: 3}, decode: {tp: 2}, gpus_per_node: 4"))[-1] == (
        "decode-0",
        "node-1",  # one free GPU on node-0 is not enough
        (0, 1),
    )


CLUSTER = (
    "cluster: {nodes: [{name: n0, gpus: 4, rack: r0}, {name: n1, gpus: 4, rack: r1}, "
    "{name: n2, gpus: 2, rack: r1, hardware: h100, nic_gb_s: 25}]}"
)


def test_given_nodes_are_used() -> None:
    packed = agg("replicas: 3", CLUSTER)
    assert [worker.node for worker in packed.pools[0].workers] == ["n0", "n0", "n0"]
    spread = agg("replicas: 4, placement: spread", CLUSTER)
    assert [worker.node for worker in spread.pools[0].workers] == ["n0", "n1", "n0", "n1"]
    mixed = disagg("prefill: {hardware: h100, replicas: 2}", CLUSTER)
    assert [(worker.node, worker.rack) for worker in mixed.pools[0].workers] == [("n2", "r1"), ("n2", "r1")]
    assert mixed.wires is not None
    assert mixed.wires.nic == {"n0": 200e9, "n1": 200e9, "n2": 25e9}


@given(
    sizes=st.lists(st.tuples(st.integers(1, 5), st.sampled_from([1, 2, 4, 8]), st.booleans()), min_size=1, max_size=3),
    gpus_per_node=st.sampled_from([8, 12]),
)
def test_no_gpu_is_given_twice(sizes: list[tuple[int, int, bool]], gpus_per_node: int) -> None:
    entry = hardware("h200")
    demands = [
        Demand(f"role{index}", "x", replicas, tp, entry, "spread" if spread else "pack")
        for index, (replicas, tp, spread) in enumerate(sizes)
    ]
    hosts, placed = place_freely(demands, gpus_per_node)
    taken = [(worker.node, gpu) for workers in placed for worker in workers for gpu in worker.gpus]
    assert len(set(taken)) == len(taken) == sum(demand.replicas * demand.tp for demand in demands)
    assert all(gpu < gpus_per_node for _, gpu in taken)
    assert {node for node, _ in taken} <= {host.name for host in hosts}


# --- wires -------------------------------------------------------------------------------------------


def test_presets_and_own_numbers() -> None:
    wires = disagg("link: {preset: pcie5, latency_us: 7, inter_node: {bandwidth_gb_s: 3, sharing: fifo}}").wires
    assert wires is not None
    assert (wires.intra_node.name, wires.intra_node.bandwidth) == ("custom", 50e9)
    assert wires.intra_node.latency_s == pytest.approx(7e-6)
    assert wires.intra_node.source.startswith("latency_us set in the spec, the rest from pcie5: PCIe 5.0")
    assert (wires.inter_node.bandwidth, wires.inter_node.sharing) == (3e9, "fifo")
    assert wires.inter_rack.bandwidth == 3e9  # racks are joined like nodes unless given
    assert wires.nic == {"node-0": 8 * 50e9}


@pytest.mark.parametrize(
    ("rest", "name"),
    [
        ("", "nvlink"),
        ("hardware: b200", "nvlink5"),
        ("hardware: a100-80g", "nvlink3"),
        ("hardware: l40s", "pcie4"),
        ("hardware: cpu\nmodel: tiny", "cpu_shm"),
    ],
)
def test_the_wire_of_a_node_follows_the_hardware(rest: str, name: str) -> None:
    wires = disagg(rest=rest).wires
    assert wires is not None
    assert wires.intra_node.name == name
    assert agg(rest=rest).wires is None


# --- presets -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROUTER_PRESETS)
def test_router_presets_are_written_out(name: str) -> None:
    system = disagg(f"router: {{preset: {name}}}")
    for router in (system.spec.deployment.router, *(pool.router for pool in system.pools)):
        assert {key: getattr(router, key) for key in ROUTER_PRESETS[name]} == ROUTER_PRESETS[name]


def test_keys_win_over_their_preset() -> None:
    system = disagg("router: {preset: dynamo_v0.3, overlap_weight: 1}, local_prefill: {max_tokens: 99}")
    assert isinstance(system.spec.deployment, Disaggregated)
    assert system.pools[0].router.overlap_weight == 1
    assert system.spec.deployment.local_prefill == LocalPrefill(max_tokens=99)
    stock = disagg("router: {preset: dynamo_v0.3}").spec.deployment
    assert isinstance(stock, Disaggregated)
    assert stock.local_prefill == LocalPrefill(max_tokens=10, max_queue=2)


# --- what cannot be ----------------------------------------------------------------------------------

IMPOSSIBLE = {
    "does not fit": (
        AGG + "model: llama-3.1-70b",
        "deployment.tp: llama-3.1-70b does not fit at tp 1: 143.3 GB of weights and working memory a GPU, "
        "138.1 GB usable on h200; allowed: tp 2 or more",
    ),
    "fits nowhere": (
        AGG + "model: llama-3.1-70b\nhardware: l4",
        "deployment.tp: llama-3.1-70b does not fit at tp 1: ",
    ),
    "pool does not fit": (
        "name: a\nmodel: llama-3.1-70b\ndeployment: {mode: disaggregated, prefill: {tp: 2}}",
        "deployment.decode.tp: llama-3.1-70b does not fit at tp 1: ",
    ),
    "tp does not divide": (
        "name: a\ndeployment: {mode: aggregated, tp: 3}",
        "deployment.tp: 3 does not divide llama-3.1-8b's 32 heads, 8 KV heads and intermediate size 14336; "
        "allowed: 1, 2, 4, 8",
    ),
    "tp beyond a node": (
        "name: a\ndeployment: {mode: disaggregated, decode: {tp: 16}}",
        "deployment.decode.tp: 16 exceeds the 8 GPUs of a node; allowed: up to 8",
    ),
    "cluster too small": (
        "name: a\ndeployment: {mode: aggregated, replicas: 3}\ncluster: {nodes: [{name: n0, gpus: 2}]}",
        "cluster.nodes: 1 of 3 aggregated workers have no place: each needs 1 free h200 GPUs on one node, "
        "free are 0 on n0; allowed: 1 more GPUs, or fewer replicas",
    ),
    "no such node": (
        AGG + "cluster: {nodes: [{name: n0, gpus: 2, hardware: h100}]}",
        "cluster.nodes: 1 of 1 aggregated workers have no place: each needs 1 free h200 GPUs on one node, "
        "free are no h200 node; allowed: ",
    ),
    "equal nodes": (
        AGG + "cluster: {nodes: [{name: n, gpus: 1}, {name: n, gpus: 1}]}",
        "cluster.nodes[1].name: 'n' is given twice; allowed: one name a node",
    ),
    "no KV for one request": (
        AGG + "engine: {num_gpu_blocks_override: 5, max_model_len: 200}",
        "engine.max_model_len: one request of 200 tokens does not fit the KV cache of 64 tokens (4 blocks of 16, "
        "deployment); allowed: up to 64, or more KV memory",
    ),
    "no KV at all": (
        AGG + "engine: {num_gpu_blocks_override: 1}",
        "engine.num_gpu_blocks_override: 1 gives 1 KV blocks, one of them vLLM's own; allowed: 2 or more",
    ),
    "no KV bytes": (
        AGG + "engine: {kv_cache_memory_bytes: 1000}",
        "engine.kv_cache_memory_bytes: 1000 gives 0 KV blocks, one of them vLLM's own; allowed: 2 or more",
    ),
    "prompt too long": (
        AGG + "engine: {max_model_len: 4096}\nworkload: {prompt_tokens: 4000}",
        "workload.prompt_tokens: 4000 prompt and 128 output tokens exceed the aggregated pool's max_model_len 4096; "
        "allowed: together up to 4096",
    ),
    "beyond the model": (
        AGG + "engine: {max_model_len: 131073}",
        "engine.max_model_len: 131073 is beyond llama-3.1-8b's 131072 positions; allowed: up to 131072",
    ),
    "budget below sequences": (
        AGG + "engine: {max_num_batched_tokens: 8, max_num_seqs: 9}",
        "engine.max_num_batched_tokens: 8 is below max_num_seqs 9; allowed: at least max_num_seqs",
    ),
    "budget below a prompt": (
        AGG + "engine: {max_num_batched_tokens: 2048, enable_chunked_prefill: false}",
        "engine.max_num_batched_tokens: 2048 is below max_model_len 131072 without chunked prefill; allowed: at least",
    ),
    "KV of two types": (
        "name: a\ndeployment: {mode: disaggregated, decode: {engine: {kv_cache_dtype: fp8}}}",
        "deployment.decode.engine: its KV cache type differs from the prefill pool's; allowed: the same dtype and ",
    ),
    "unknown model": (AGG + "model: llama3.1-8b", "model: 'llama3.1-8b' is unknown; did you mean 'llama-3.1-8b'? allo"),
    "unknown hardware": (
        AGG + "hardware: h300",
        "hardware: 'h300' is unknown; did you mean 'h200'? allowed: a100-40g,",
    ),
    "unknown profile": (AGG + "profile: nope", "profile: 'nope' is unknown; allowed: "),
    "unknown link": (
        "name: a\ndeployment: {mode: disaggregated, link: {preset: nvlinc}}",
        "deployment.link.preset: 'nvlinc' is unknown; did you mean 'nvlink'? allowed: cpu_shm, ",
    ),
    "unknown policy": (
        "name: a\ndeployment: {mode: aggregated, router: {policy: roundrobin}}",
        "deployment.router.policy: 'roundrobin' is unknown; did you mean 'round_robin'? allowed: random, round_robin, ",
    ),
    "unknown policy of a pool": (
        "name: a\ndeployment: {mode: disaggregated, decode: {router: {policy: zzz}}}",
        "deployment.decode.router.policy: 'zzz' is unknown; allowed: random, ",
    ),
    "missing trace": (
        AGG + "workload: {kind: trace, path: no/such.jsonl}",
        "workload.path: no/such.jsonl: no such file; allowed: the path of a trace file",
    ),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_what_cannot_be_gets_one_line(case: str) -> None:
    text, line = IMPOSSIBLE[case]
    with pytest.raises(SpecError) as caught:
        resolve(parse(text))
    assert str(caught.value).startswith(line)
    assert "allowed: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_named_tp_does_fit() -> None:
    assert agg("tp: 2", "model: llama-3.1-70b").pools[0].limits.kv_blocks > 1000


def test_a_folder_is_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, '
        '"vocab_size": 100, "intermediate_size": 128, "max_position_embeddings": 2048}'
    )
    system = agg(rest=f"model: {tmp_path}\nhardware: cpu")
    assert system.model == load_model(str(tmp_path))
    assert system.kv_bytes_per_token == 2 * 2 * 64 * 2
