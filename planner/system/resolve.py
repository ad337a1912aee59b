"""A spec with everything looked up: models, hardware, engine limits, latency, links and placement.

Both backends, `suggest` and `explain` work on a `System`; only `planner.engine.limits` knows vLLM's defaults.
"""

from __future__ import annotations

import difflib
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from planner.engine.catalogue import Hardware, hardware, names
from planner.engine.engine_limits import EngineLimits
from planner.engine.limits import batch_sizes, divides, limits, uneven
from planner.engine.model_config import load_model
from planner.engine.model_shape import ModelShape
from planner.engine.parallel import Parallel
from planner.engine.profile_file import HandOverLaw, ProfileFile, WireLaw
from planner.engine.profiles import (
    LatencyProfile,
    Types,
    from_file,
    nearest,
    read_profile,
    roofline,
    shipped,
    shipped_models,
)
from planner.engine.roof import Roof
from planner.engine.service import of_service
from planner.engine.setup import Setup
from planner.engine.shared_kv import SharedKv
from planner.engine.tp_scaling import for_engine, is_scaled, other_types, types_told
from planner.messages import message
from planner.routing import POLICIES
from planner.spec import (
    Aggregated,
    Disaggregated,
    Engine,
    Link,
    LocalPrefill,
    Optimizations,
    PoolSpec,
    Router,
    Spec,
    SpecError,
    Trace,
)
from planner.spec.service import MeasuredService
from planner.system.knobs import changed_limits, changed_step
from planner.system.placement import Demand, WorkerPlace, given_hosts, place_freely, place_on
from planner.system.wires import Wire, Wires, of_pieces, wires

__all__ = ["EngineLimits", "Pool", "Role", "System", "Wire", "Wires", "WorkerPlace", "resolve"]

Role = Literal["aggregated", "prefill", "decode"]


@dataclass(frozen=True, slots=True)
class Pool:
    role: Role
    setup: Setup  # with the pool's own keys
    limits: EngineLimits
    profile: LatencyProfile
    router: Router
    workers: tuple[WorkerPlace, ...]

    @property
    def tp(self) -> int:
        return self.setup.tp

    @property
    def dp(self) -> int:
        """Ranks of a server; `workers` are ranks, one server's after the other's."""
        return self.setup.parallel.dp

    @property
    def in_lockstep(self) -> bool:
        """Whether the ranks of a server take every step together."""
        return self.setup.ranks > 1

    @property
    def shared_kv(self) -> SharedKv | None:
        """What KV that several sequences hold saves; None where nothing is known of the GPU's L2 cache.

        Times that were fitted to what a service did with its traffic have it already.
        """
        layers, wave, file = self.model.layers, Roof(self.setup).wave_seqs, self.profile.file
        of_traffic = self.profile.service or (file is not None and file.fitted_to is not None)
        if self.hardware.l2_mb is None or not wave or of_traffic:
            return None
        return SharedKv(wave, 1e6 * self.hardware.l2_mb * layers / self.setup.kv_bytes_per_token)

    @property
    def servers(self) -> tuple[WorkerPlace, ...]:
        """What is started and has an address: all workers, or the ranks of each server with all their GPUs as one."""
        if self.dp == 1:
            return self.workers
        found = []
        for first in range(0, len(self.workers), self.dp):
            ranks = self.workers[first : first + self.dp]
            gpus = tuple(gpu for rank in ranks if rank.node == ranks[0].node for gpu in rank.gpus)
            found.append(replace(ranks[0], name=ranks[0].server, gpus=gpus))
        return tuple(found)

    @property
    def hardware(self) -> Hardware:
        return self.setup.hardware

    @property
    def engine(self) -> Engine:
        return self.setup.options

    @property
    def model(self) -> ModelShape:
        return self.setup.model


@dataclass(frozen=True, slots=True)
class System:
    spec: Spec
    model: ModelShape
    pools: tuple[Pool, ...]  # (aggregated,) or (prefill, decode)
    wires: Wires | None  # None when aggregated
    kv_bytes_per_token: int  # of the whole model, summed over layers, before TP head replication
    warnings: tuple[str, ...] = ()

    @property
    def gpus(self) -> int:
        return sum(len(pool.workers) * pool.tp for pool in self.pools)

    @property
    def disaggregated(self) -> bool:
        return len(self.pools) == 2

    @property
    def block_descriptors(self) -> int:
        """Pieces that one worker posts for a KV block of a hand-over; 0 without hand-overs.

        Nobody has measured the posts of transfers that go layer by layer: they count as none.
        """
        if self.wires is None or self.spec.optimizations.transfer.layerwise is not None:
            return 0
        hand = self.wires.hand_over
        prefill, decode = (pool.tp for pool in self.pools)
        writer, reader = (decode, prefill) if hand.push else (prefill, decode)
        return hand.descriptors(self.model.layers, bool(self.model.latent_dim), max(1, writer // reader))

    @property
    def piece_bytes(self) -> float:
        """Bytes of one of these pieces; 0 without."""
        pieces = self.block_descriptors
        if not pieces or self.wires is None:
            return 0.0
        poster = self.pools[0 if self.wires.hand_over.push else 1]
        return self.kv_bytes_per_token * self.pools[1].limits.block_size / (pieces * poster.tp)


# What a preset stands for; keys that the spec sets itself win.
ROUTER_PRESETS: dict[str, dict[str, Any]] = {
    # The 2025 report ran Dynamo v0.3's stock agg.yaml and disagg.yaml: requests go to workers in turn, the decode
    # worker is chosen first and prefills wait in one queue that the prefill workers pull from.
    "report": {"policy": "round_robin", "decode_choice": "at_arrival", "prefill_dispatch": "shared_queue"},
    # Dynamo v0.3 with `router: kv`: score 2 * overlap - cache usage - waiting; here the same trade as a cost.
    "dynamo_v0.3": {
        "policy": "prefix_aware",
        "overlap_weight": 2.0,
        "decode_choice": "at_arrival",
        "prefill_dispatch": "shared_queue",
    },
    # vLLM's example proxy for NIXL: each pool in turn, decode chosen when prefill has answered.
    "vllm_proxy": {"policy": "round_robin", "decode_choice": "after_prefill", "prefill_dispatch": "push"},
}
# Dynamo v0.3's disagg.yaml: max-local-prefill-length 10, max-prefill-queue-size 2.
LOCAL_PREFILL_PRESETS = {name: LocalPrefill(max_tokens=10, max_queue=2) for name in ("report", "dynamo_v0.3")}


def _router(router: Router, where: str) -> Router:
    """Presets expanded, the policy known."""
    if router.preset is not None:
        values = {
            key: value for key, value in ROUTER_PRESETS[router.preset].items() if key not in router.model_fields_set
        }
        router = router.model_copy(update=values)
    if router.policy not in POLICIES:
        close = difflib.get_close_matches(router.policy, POLICIES, n=1)
        near = message(" did you mean '{near}'?", close[0]) if close else ""
        raise SpecError(
            "{where}.policy: {policy!r} is unknown;{near} allowed: {policies}",
            where,
            router.policy,
            near,
            ", ".join(POLICIES),
        )
    return router


def _engine(spec: Spec, pool: PoolSpec | None) -> Engine:
    """The top level's keys with the pool's own over them."""
    if pool is None or pool.engine is None:
        return spec.engine
    return spec.engine.model_copy(update={key: getattr(pool.engine, key) for key in pool.engine.model_fields_set})


def _twin(profile: LatencyProfile, model: ModelShape) -> str:
    """The name to compare with the profile's: models of one shape (fine-tunes) take the same time."""
    file = profile.file
    return file.model if file is not None and _alike(file.model, model) else model.name


def _alike(name: str, model: ModelShape) -> bool:
    """Whether a catalogue's model is this one, or of its shape."""
    if name == model.name:
        return True
    if name not in names("models"):
        return False
    other = load_model(name)
    return (other.parameters, other.windows, other.kv_heads, other.head_dim) == (
        model.parameters,
        model.windows,
        model.kv_heads,
        model.head_dim,
    )


@lru_cache(maxsize=64)  # a search resolves the same engine hundreds of times
def _calibrated(model: ModelShape, hardware_name: str, types: Types) -> ProfileFile | None:
    """The shipped calibration of an engine; None: there is none."""
    for other in shipped_models(hardware_name):
        name = shipped(other, hardware_name, types)
        if name is not None and _alike(other, model):
            found = read_profile(name)
            return found if isinstance(found, ProfileFile) else None
    return None


def _unused(spec: Spec, pool: PoolSpec, key: str, setup: Setup) -> list[str]:
    """That a shipped calibration is of just this engine, where the roofline is used and nobody has asked for it."""
    if "profile" in pool.model_fields_set or ("profile" in spec.model_fields_set and spec.profile is None):
        return []
    found = _calibrated(setup.model, setup.hardware.name, setup.model.types(setup.options))
    if found is None:
        return []
    file = nearest(found, setup.tp)
    if file.fit_error is None:
        return []
    where = "profile" if pool.hardware in (None, spec.hardware) else f"{key}.profile"
    return [
        message(
            "{key}: step times here are the roofline's, though {name} is calibrated on this model and GPU (within "
            "{error:.1f} % of the steps measured at TP {tp}; the roofline's error stands with the answer): --set "
            "{key}={name} uses it, {key}=null is the roofline on purpose",
            where,
            found.name,
            100 * file.fit_error,
            file.tp,
        )
    ]


def _measured_kv(profile: LatencyProfile, setup: Setup, twin: str) -> int | None:
    """KV tokens that vLLM reported for just this engine; None when the profile is of another one or says nothing."""
    file, engine = profile.file, setup.options
    if file is None or engine.dtype != "auto" or file.types != setup.model.types(engine):
        return None
    mine = (twin, setup.hardware.name, setup.tp, engine.gpu_memory_utilization)
    return file.kv_cache_tokens if mine == (file.model, file.hardware, file.tp, file.gpu_memory_utilization) else None


def _latency(profile: str | MeasuredService | None, setup: Setup, model: str, role: Role) -> LatencyProfile:
    """What the spec names, at the TP nearest to the engine's that was measured, or the roofline. Raises SpecError."""
    if profile is None:
        return _roofline(setup, role)
    found = read_profile(profile) if isinstance(profile, str) else profile
    if isinstance(found, MeasuredService):
        return of_service(found, setup, model)
    file = nearest(found, setup.tp)
    return _in_its_role(file, role)


def _in_its_role(file: ProfileFile, role: Role) -> LatencyProfile:
    return from_file(file if role == "aggregated" else file.in_a_pair)


def _roofline(setup: Setup, role: Role) -> LatencyProfile:
    found = roofline(setup)
    if found.file is None or found.file.connected is None:
        return found
    return _in_its_role(found.file, role).for_engine(setup.options)


def _with_room(setup: Setup, profile: LatencyProfile) -> Setup:
    """The engine with the KV room that a measured service says it has, unless the spec says another."""
    tokens, options = profile.kv_cache_tokens, setup.options
    if not profile.service or tokens is None or options.num_gpu_blocks_override is not None:
        return setup
    blocks = tokens // batch_sizes(setup)[2] + 2  # one is vLLM's own, one partly filled
    return replace(setup, options=options.model_copy(update={"num_gpu_blocks_override": blocks}))


def _other_types(profile: LatencyProfile, setup: Setup) -> list[str]:
    """What to warn of where a calibrated profile is of an engine with other types that it could not be scaled from."""
    if profile.provenance != "calibrated" or profile.file is None or not other_types(profile.file, setup):
        return []
    return [
        message(
            "profile {name} is for {theirs}, used for {ours}; times are not to be trusted",
            profile.name,
            types_told(profile.file.types),
            types_told(setup.model.types(setup.options)),
        )
    ]


def _pool(spec: Spec, base: ModelShape, role: Role, pool: PoolSpec, key: str, most: int) -> tuple[Pool, list[str]]:
    """One pool without its workers, and what to warn of."""
    engine, entry = _engine(spec, pool), hardware(pool.hardware or spec.hardware)
    setup = Setup.of(base, entry, engine, pool.tp, pool.dp, most)
    model = setup.model
    _check_experts(model, engine, f"{key}.engine" if pool.engine else "engine")
    if (why := uneven(model, setup.parallel)) is not None:
        fitting = [str(size) for size in range(1, most + 1) if divides(model, setup.at(size, pool.dp).parallel)]
        allowed = ", ".join(fitting) or message("another checkpoint")
        if model.experts and divides(model, Parallel(pool.tp, ep=pool.tp * pool.dp, dp=pool.dp)):
            allowed = message("{sizes}; {tp} with engine.enable_expert_parallel: true", allowed, pool.tp)
        raise SpecError("{key}.tp: {why}; allowed: {sizes}", key, why, allowed)
    name = pool.profile or spec.profile
    budget, seqs, _ = batch_sizes(setup)
    measured = _latency(name, setup, spec.model, role)
    twin = _twin(measured, model)
    warnings = measured.mismatches(setup, twin)
    if warnings and not measured.service:  # another engine's times are further off than a roofline's
        measured, twin = _roofline(setup, role), model.name
    if name is None or (warnings and not measured.service):
        warnings += _unused(spec, pool, key, setup)
    if measured.service and pool.dp > 1:
        raise SpecError(
            "{key}.dp: profile {name} is of a worker as a whole, whatever its ranks; allowed: 1", key, measured.name
        )
    found = limits(_with_room(setup, measured), _measured_kv(measured, setup, twin), key, most)
    profile = for_engine(measured, setup).for_engine(engine, seqs, budget)
    knobs = spec.optimizations
    found = changed_limits(found, setup, profile, knobs)
    profile = changed_step(profile, setup, knobs, role != "prefill")
    if pool.dp > 1:
        _check_ranks(key, knobs, setup.ranks > 1)
    untold = _other_types(profile, setup)
    warnings += [*profile.other_release(entry.kind), *profile.warnings, *untold]
    if setup.ranks > 1:
        warnings.append(
            message(
                "{key}.dp: {ranks} ranks in lockstep; what that adds was measured with one model on two H200s",
                key,
                setup.ranks,
            )
        )
    if profile.provenance == "calibrated":
        profile = replace(profile, stretched=bool(untold) or is_scaled(profile.file) or setup.ranks > 1)
    if any(window is not None and window < found.max_model_len for window in model.windows):
        warnings.append(
            message("{model}: attention windows are not modelled; KV and attention are counted in full", model.name)
        )
    router = _router(pool.router or spec.deployment.router, f"{key}.router" if pool.router else "deployment.router")
    return Pool(role, setup, found, profile, router, ()), warnings


def _check_ranks(key: str, knobs: Optimizations, lockstep: bool) -> None:
    """Refuse the knobs whose work on the ranks of one server is not known."""
    prefill, decode = knobs.prefill, knobs.decode
    on = {
        "separation.role_switch": knobs.separation.role_switch is not None,
        "transfer.layerwise": lockstep and knobs.transfer.layerwise is not None,
        "prefill.sparse_attention": lockstep and prefill.sparse_attention is not None,
        "prefill.streams": lockstep and prefill.streams is not None,
        "decode.persistent": lockstep and decode.persistent is not None,
        "decode.micro_batches": lockstep and decode.micro_batches > 1,
    }
    if any(on.values()):
        name = next(name for name, given in on.items() if given)
        raise SpecError(
            "{key}.dp: optimizations.{name} is not modelled for ranks of one server; allowed: dp 1, or without it",
            key,
            name,
        )


def _check_experts(model: ModelShape, engine: Engine, key: str) -> None:
    if engine.enable_expert_parallel and not model.experts:
        raise SpecError(
            "{key}.enable_expert_parallel: {model} has no experts; allowed: with mixtures of experts", key, model.name
        )
    if engine.expert_imbalance != 1.0 and not engine.enable_expert_parallel:
        raise SpecError(
            "{key}.expert_imbalance: every GPU has a share of every expert; allowed: with enable_expert_parallel: true",
            key,
        )


def _pool_specs(spec: Spec) -> list[tuple[Role, str, PoolSpec]]:
    deployment = spec.deployment
    if isinstance(deployment, Aggregated):
        only = PoolSpec(
            replicas=deployment.replicas, tp=deployment.tp, dp=deployment.dp, placement=deployment.placement
        )
        return [("aggregated", "deployment", only)]
    return [
        ("prefill", "deployment.prefill", deployment.prefill),
        ("decode", "deployment.decode", deployment.decode),
    ]


def _expanded(spec: Spec) -> Spec:
    """The spec with router presets written out, so that a run's manifest holds concrete values."""
    deployment = spec.deployment
    router = _router(deployment.router, "deployment.router")
    update: dict[str, Any] = {"router": router}
    preset = LOCAL_PREFILL_PRESETS.get(router.preset or "")
    if isinstance(deployment, Disaggregated) and preset and "local_prefill" not in deployment.model_fields_set:
        update["local_prefill"] = preset
    return spec.model_copy(update={"deployment": deployment.model_copy(update=update)})


def _check_lengths(spec: Spec, pools: list[Pool]) -> None:
    """A fixed prompt that no worker can hold is a mistake in the spec, not a load to simulate."""
    prompt, output = (getattr(spec.workload, key, None) for key in ("prompt_tokens", "output_tokens"))
    if not isinstance(prompt, int) or not isinstance(output, int):
        return
    for pool in pools:
        if prompt + output > pool.limits.max_model_len:
            raise SpecError(
                "workload.prompt_tokens: {prompt} prompt and {output} output tokens exceed the {role} pool's "
                "max_model_len {most}; allowed: together up to {most}",
                prompt,
                output,
                pool.role,
                pool.limits.max_model_len,
            )


def _check_trace(spec: Spec) -> None:
    if isinstance(spec.workload, Trace):
        path = spec.workload.path
        if not path.strip():
            raise SpecError("workload.path: is empty; allowed: the path of a trace file")
        if not Path(path).exists():  # a folder, too: agents' sessions, a run
            raise SpecError("workload.path: {path}: no such file; allowed: the path of a trace file", path)


def _crosses(pools: tuple[Pool, ...]) -> bool:
    """Whether a prefill and a decode worker stand on different nodes."""
    prefill, decode = ({worker.node for worker in pool.workers} for pool in pools)
    return len(prefill | decode) > 1


def host_warnings(pools: tuple[Pool, ...]) -> list[str]:
    """CPU workers that share a host, where nobody measured how they slow each other."""
    workers = [(worker, pool) for pool in pools if pool.hardware.kind == "cpu" for worker in pool.workers]
    counts = Counter(worker.node for worker, _ in workers)
    unknown = {
        pool.profile.name for worker, pool in workers if counts[worker.node] > 1 and not pool.profile.interference
    }
    return [
        message(
            "workers share one host's CPU, and profile {name} does not say how they slow each other: times are those "
            "of a worker alone",
            name,
        )
        for name in sorted(unknown)
    ]


def _measured_link(spec: Link, pools: tuple[Pool, ...]) -> tuple[WireLaw | None, HandOverLaw | None]:
    """The link of a pool's profile and what hand-overs cost on it, where the spec leaves the wire open."""
    if spec.intra_node is not None or spec.preset is not None or spec.bandwidth_gb_s is not None:
        return None, None
    files = [pool.profile.file for pool in pools if pool.profile.file]
    return next((file.link for file in files if file.link), None), next(
        (file.hand_over for file in files if file.hand_over), None
    )


def knob_warnings(spec: Spec) -> list[str]:
    """Knobs that change answers, and those that have nothing to work on. Raises SpecError for one that cannot work."""
    knobs, deployment = spec.optimizations, spec.deployment
    warnings: list[str] = [
        message("optimizations.{name} changes what the model answers", name) for name in knobs.changes_output
    ]
    if isinstance(deployment, Aggregated):
        idle = [name for name in ("transfer", "separation") if getattr(knobs, name) != type(getattr(knobs, name))()]
        return warnings + [
            message("optimizations.{name}: nothing to do in an aggregated deployment", name) for name in idle
        ]
    if deployment.link.cross_layer_blocks and spec.hardware != "cpu":
        warnings.append(
            message(
                "deployment.link.cross_layer_blocks: simulated as asked for; vLLM 0.25.1 with FlashAttention took the "
                "option and posted every layer by itself all the same (measured), and vLLM 0.32 has none for NIXL"
            )
        )
    if knobs.separation.role_switch is not None and deployment.router.decode_choice != "after_prefill":
        raise SpecError(
            "optimizations.separation.role_switch: a worker chosen at arrival could leave before its "
            "prompt comes; allowed: with router.decode_choice: after_prefill"
        )
    if knobs.separation.role_switch is not None and spec.retrieval and spec.retrieval.at == "prefill_worker":
        raise SpecError(
            "optimizations.separation.role_switch: a decode worker has no retrieval stage to bring "
            "along; allowed: with retrieval.at: frontend"
        )
    return warnings


def resolve(spec: Spec) -> System:
    """Look everything up. Raises `SpecError` when the model does not fit, TP does not divide, a name is unknown."""
    spec = _expanded(spec)
    _check_trace(spec)
    base = load_model(spec.model)
    if base.state_layers:
        raise SpecError(
            "model: {model} keeps a state instead of KV in {states} of its {layers} layers, whose step time is not "
            "covered; allowed: models with attention in every layer, or `planner memory` for its sizes",
            base.name,
            base.state_layers,
            base.layers,
        )
    nodes, deployment = spec.cluster.nodes, spec.deployment
    most = max((node.gpus for node in nodes), default=deployment.gpus_per_node)
    demands, pools, warnings = [], [], list[str]()
    for role, key, wanted in _pool_specs(spec):
        if wanted.tp > most:
            raise SpecError(
                "{key}.tp: {tp} exceeds the {most} GPUs of a node; allowed: up to {most}", key, wanted.tp, most
            )
        pool, notes = _pool(spec, base, role, wanted, key, most)
        pools.append(pool)
        warnings += notes
        demands.append(Demand(role, key, wanted.replicas, wanted.tp, pool.hardware, wanted.placement, wanted.dp))
    _check_lengths(spec, pools)
    if nodes:
        known = {node.hardware: hardware(node.hardware) for node in nodes if node.hardware}
        hosts = given_hosts(nodes, hardware(spec.hardware), known)
        placed = place_on(hosts, demands)
    else:
        hosts, placed = place_freely(demands, deployment.gpus_per_node)
    filled = tuple(replace(pool, workers=workers) for pool, workers in zip(pools, placed, strict=True))
    model = filled[0].model
    if len({pool.model.kv_dtype_bytes for pool in filled}) > 1:
        raise SpecError(
            "deployment.decode.engine: its KV cache type differs from the prefill pool's; allowed: the "
            "same dtype and kv_cache_dtype in both"
        )
    if isinstance(deployment, Disaggregated) and deployment.link.inter_node is None and _crosses(filled):
        warnings.append(
            message("link.inter_node: not given, yet KV crosses nodes; a nominal link is assumed between them")
        )
    warnings += [*knob_warnings(spec), *host_warnings(filled)]
    net = None
    if isinstance(deployment, Disaggregated):
        net = wires(deployment.link, filled[0].hardware, hosts, *_measured_link(deployment.link, filled))
        if not net.hand_over.post_s and filled[0].hardware.kind != "cpu":  # a CPU's engines copy KV themselves
            warnings.append(
                message(
                    "deployment.link: what a hand-over over {link} costs the workers was not measured and counts as "
                    "nothing; where it was (nvlink_nixl) it delays first tokens",
                    net.intra_node.name,
                )
            )
    system = System(spec, model, filled, net, model.kv_bytes_per_token, tuple(dict.fromkeys(warnings)))
    if net is None or not system.block_descriptors or _sets_wire(deployment):
        return system
    return replace(system, wires=of_pieces(net, system.piece_bytes, filled[0].hardware))


def _sets_wire(deployment: Aggregated | Disaggregated) -> bool:
    """Whether the spec itself says how fast the wire of one node is, or what posts take."""
    if isinstance(deployment, Aggregated):
        return False
    inner = deployment.link.intra_node
    named = deployment.link.bandwidth_gb_s if inner is None else inner.bandwidth_gb_s
    return named is not None or deployment.link.post_us is not None
