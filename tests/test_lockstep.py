"""Ranks of one server: steps that all of them take, what they cost, where they stand, and who gets a request."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import planner
from planner.engine.ledger import ledger
from planner.engine.step_time import AffineStep, Share, graph_size
from planner.routing import WorkerLoad, rank_of
from planner.spec import Spec, SpecError
from planner.system.resolve import System, resolve
from planner.traffic import workload
from simulator.cluster import SimulatedCluster
from simulator.pool import SimulatedPool

MODEL = "qwen3-30b-a3b"


def spec(*changes: str, model: str = MODEL) -> Spec:
    keys = [f"model={model}", "profile=null", "workload.prompt_tokens=400", "workload.output_tokens=20", *changes]
    return planner.load("agg", keys)


def served(system: System) -> SimulatedCluster:
    cluster = SimulatedCluster(system, workload.build(system.spec))
    cluster.run()
    return cluster


def ranks_of(model: str) -> System:
    return resolve(spec("deployment.dp=2", model=model))


def law(*changes: str) -> AffineStep:
    step = resolve(spec("deployment.replicas=1", *changes)).pools[0].profile.step
    assert isinstance(step, AffineStep)
    return step


CHUNKS = st.lists(st.tuples(st.integers(2, 4000), st.integers(0, 2000)), max_size=3)
SHARES = st.builds(
    lambda chunks, batch, each: Share(chunks, batch, batch * each), CHUNKS, st.integers(0, 300), st.integers(1, 3000)
)


@settings(deadline=None)
@given(st.lists(SHARES, min_size=4, max_size=4), st.integers(0, 3), SHARES)
def test_more_work_on_any_rank_never_shortens_the_step_of_all(ranks: list[Share], which: int, more: Share) -> None:
    step, one = STEPS["dp4"], ranks[which]
    if not any(rank.chunks for rank in (*ranks, more)) or any(rank.chunks for rank in ranks):
        fuller = Share([*one.chunks, *more.chunks], one.batch + more.batch, one.context + more.context)
        assert step.together([*ranks[:which], fuller, *ranks[which + 1 :]]) >= step.together(ranks) * (1 - 1e-12)


@given(CHUNKS, st.integers(1, 300), st.integers(1, 3000))
def test_even_ranks_take_what_each_would_take_of_the_law(chunks: list[tuple[int, int]], batch: int, each: int) -> None:
    step, share = STEPS["dp4"], Share(chunks, batch, batch * each)
    base, slope = step.decode(batch)
    tokens = sum(new for new, _ in chunks)
    rows = tokens + batch
    everyone = 4 * (graph_size(rows, step.sizes) if rows <= step.sizes[-1] else rows)
    alone = step.mixed(chunks, batch, batch * each, everyone) if chunks else base + slope * batch * each
    launch = step.launch(tokens, batch)
    assert step.together([share] * 4) == pytest.approx(max(alone, launch), rel=1e-12)
    head = max(alone + step.launch(0, batch), launch)
    assert step.together([share] * 4, idle=True) == pytest.approx(head, rel=1e-12)


def test_ranks_without_work_are_padded_to_the_busy_one() -> None:
    """One request on one of two ranks takes as long as one on each; the exchange counts."""
    step, busy = law("deployment.dp=2"), Share((), 3, 3000)
    assert step.together([busy, Share()]) == step.together([busy, busy])
    longer = step.law.model_copy(update={"decode_per_exchanged_s": 0.0})
    assert AffineStep(longer, step.sizes).decode(3)[0] < step.decode(3)[0]


def test_a_prompt_that_graphs_cover_is_one_on_every_rank() -> None:
    """vLLM pads all ranks to the largest one's tokens where they run a graph, not beyond it."""
    step = law("deployment.dp=2")
    covered, beyond = Share([(step.sizes[-1], 0)]), Share([(4 * step.sizes[-1], 0)])
    assert step.together([covered, Share()]) == step.together([covered, covered])
    assert step.together([beyond, Share()]) < step.together([beyond, beyond])


@pytest.mark.parametrize(("ahead", "passed"), [("true", 1), ("false", 0)])
def test_a_request_to_an_idle_rank_waits_for_dummies_that_are_launched(ahead: str, passed: int) -> None:
    """The other rank is at work: engines that schedule ahead have launched one step more without the request."""
    changes = ["deployment.dp=2", "deployment.replicas=1", f"engine.async_scheduling={ahead}"]
    traffic = "workload={kind: constant, rate: 20, requests: 2, prompt_tokens: 64, output_tokens: 60}"
    first, second = served(resolve(spec(*changes, traffic))).visits
    assert first.worker is not None and second.worker is not None
    assert first.worker is not second.worker
    begun = [start for start, *_ in first.worker.engine.steps if second.queued_s < start]
    assert begun.index(second.prefill_start_s) == passed


def test_a_prompt_on_one_rank_holds_up_the_others() -> None:
    step, decodes = law("deployment.dp=2"), Share((), 8, 8000)
    alone, prompt = step.together([decodes, decodes]), Share([(4000, 0)])
    assert step.together([decodes, prompt]) > 3 * alone
    # its experts' products are shared: two prompts take less than twice as long, more than one
    both = step.together([prompt, prompt])
    assert step.together([Share(), prompt]) < both < 2 * step.together([Share(), prompt])


def tokens_in_lockstep(pool: SimulatedPool) -> int:
    """Of all steps, after a look that those of a group are the same steps, one after the other."""
    groups: dict[str, dict[float, set[float]]] = defaultdict(lambda: defaultdict(set))
    tokens = 0
    for station in pool.stations:
        for start, duration, prefill, seqs, _, count, *_ in station.engine.steps:
            assert count == 1
            tokens += prefill + seqs
            groups[station.place.server][start].add(start + duration)
    for steps in groups.values():
        assert all(max(ends) - min(ends) < 1e-9 for ends in steps.values())
        assert all(max(steps[one]) <= after + 1e-9 for one, after in pairwise(sorted(steps)))
    return tokens


@settings(max_examples=12, deadline=None)
@given(st.sampled_from([2, 3, 4]), st.sampled_from([1, 2]), st.sampled_from([10, 60, 200]), st.integers(0, 1000))
def test_steps_of_a_group_begin_and_end_together(dp: int, replicas: int, rate: int, seed: int) -> None:
    changes = [f"deployment.dp={dp}", f"deployment.replicas={replicas}", f"workload.rate={rate}"]
    cluster = served(resolve(spec(*changes, f"run.seed={seed}", "workload.requests=40")))
    assert tokens_in_lockstep(cluster.pools[0]) == 40 * (400 + 20 - 1)
    assert all(visit.finish_reason == "length" for visit in cluster.visits)
    assert not any(station.engine.kv.total - station.engine.kv.free for station in cluster.pools[0].stations)
    servers = Counter(visit.worker.place.server for visit in cluster.visits if visit.worker)
    assert len(servers) == replicas  # each has some of them


def test_ranks_without_work_take_turns() -> None:
    changes = ["deployment.dp=3", "deployment.replicas=1", "workload={kind: constant, rate: 0.5, requests: 9}"]
    names = [visit.worker.place.name for visit in served(resolve(spec(*changes))).visits if visit.worker]
    assert names == names[:3] * 3
    assert len(set(names)) == 3


def test_pools_of_ranks_hand_their_kv_over() -> None:
    changes = ["deployment.prefill.dp=2", "deployment.decode.dp=2", "workload.rate=30", "workload.requests=40"]
    changes += ["deployment.link.post_us=300"]  # longer than a step, so that an engine is busy without one
    config = planner.load(
        "disagg", [f"model={MODEL}", "profile=null", "workload.output_tokens=20", *changes, "deployment.prefill.tp=1"]
    )
    system = resolve(config)
    cluster = served(system)
    assert system.gpus == 2 * sum(len(pool.servers) * pool.tp for pool in system.pools)
    assert len(cluster.transfers.bytes) == 40
    prompts = sum(visit.request.prompt_tokens for visit in cluster.visits)
    assert [tokens_in_lockstep(pool) for pool in cluster.pools] == [prompts, 40 * 20]
    assert set(cluster.transfers.source) == {place.name for place in system.pools[0].workers}


def test_ranks_of_a_dense_model_go_their_own_way() -> None:
    """As many servers would, where each gets the same requests."""
    ranks = served(resolve(spec("deployment.dp=2", "deployment.replicas=1", model="llama-3.1-8b")))
    servers = served(
        resolve(spec("deployment.replicas=2", "deployment.router.policy=least_loaded", model="llama-3.1-8b"))
    )
    assert [one.finish_s for one in ranks.visits] == pytest.approx([one.finish_s for one in servers.visits], rel=0.05)
    assert not any("lockstep" in line for line in ranks_of("llama-3.1-8b").warnings)


def test_ranks_keep_kv_of_their_own_and_share_the_experts() -> None:
    """MLA's latent is whole on every GPU of tp: ranks hold as many times the tokens. Experts weigh the same."""
    whole, ranks = (
        resolve(spec("deployment.replicas=1", size, model="deepseek-v3")).pools[0]
        for size in ("deployment.tp=8", "deployment.dp=8")
    )
    weigh = [pool.model.weight_bytes_per_gpu(pool.setup.parallel) for pool in (whole, ranks)]
    attention = weigh[1] - weigh[0]
    assert 0 < attention < pool_dense(whole)
    assert whole.setup.kv_bytes_per_token == ranks.setup.kv_bytes_per_token
    assert 8 * ranks.limits.kv_blocks > 4 * whole.limits.kv_blocks
    assert ranks.setup.parallel.nodes == 1
    (row,) = ledger("deepseek-v3", "h200", ranks.engine, [1], dp=8)["gpus"]
    assert row["weights_gib"] == weigh[1] / 2**30


def pool_dense(pool: planner.system.resolve.Pool) -> float:
    """Bytes of all but the routed experts."""
    return pool.model.weight_bytes - pool.model.routed_bytes


def test_ranks_stand_on_whole_nodes() -> None:
    wide = resolve(spec("deployment.dp=16", "deployment.replicas=1")).pools[0]
    assert wide.setup.parallel.nodes == 2
    assert [place.node for place in wide.workers] == ["node-0"] * 8 + ["node-1"] * 8
    assert len({(place.node, place.gpus) for place in wide.workers}) == 16
    together = law("deployment.dp=8").law.decode_per_exchanged_s
    assert law("deployment.dp=16").law.decode_per_exchanged_s > together > 0
    pair = resolve(spec("deployment.dp=3", "deployment.tp=2", "deployment.replicas=2")).pools[0]
    assert [len({place.node for place in pair.workers[at : at + 3]}) for at in (0, 3)] == [1, 1]
    assert [place.name for place in pair.servers] == ["aggregated-0", "aggregated-1"]
    assert [len(place.gpus) for place in pair.servers] == [6, 6]


@pytest.mark.parametrize(
    ("loads", "first", "chosen"),
    [
        ([(0, 0, 0), (0, 0, 0)], 1, 1),
        ([(3, 0, 0), (2, 0, 0)], 0, 1),
        ([(4, 2, 50), (7, 0, 99)], 0, 0),  # up to half full waiting requests count as others
        ([(4, 2, 100), (7, 0, 100)], 0, 1),  # full: three times more
    ],
)
def test_vllm_gives_a_request_to_the_rank_with_the_fewest(
    loads: list[tuple[int, int, int]], first: int, chosen: int
) -> None:
    assert rank_of([WorkerLoad("", one, two, 0, used, 100) for one, two, used in loads], first) == chosen


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("optimizations.decode.micro_batches=2", "deployment.dp: optimizations.decode.micro_batches is not modelled"),
        ("optimizations.prefill.streams={}", "deployment.dp: optimizations.prefill.streams is not modelled for"),
        ("cluster.nodes=[{name: a, gpus: 2}]", "cluster.nodes: 1 of 1 aggregated workers have no place: each needs 8"),
        ("deployment.dp=5", "deployment.tp: 5 GPUs do not divide qwen3-30b-a3b's expert width 768; allowed: "),
        (
            "profile={kind: measured_service, prefill_tokens_per_s: 9000, tpot_ms: {base: 30}}",
            "deployment.dp: profile",
        ),
    ],
)
def test_what_ranks_cannot_be_gets_one_line(change: str, line: str) -> None:
    with pytest.raises(SpecError) as caught:
        resolve(spec("deployment.dp=8", "deployment.replicas=1", change))
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_answers_say_that_lockstep_is_not_measured() -> None:
    from planner.engine.provenance import origin

    system = resolve(spec("deployment.dp=2", "profile=h200-qwen3-30b-a3b-tp1-served"))
    assert system.pools[0].profile.stretched
    assert origin([system.pools[0].profile]).endswith("ranks in lockstep are measured with one model only")
    assert any(line.startswith("deployment.dp: 2 ranks in lockstep") for line in system.warnings)


STEPS = {"dp4": law("deployment.dp=4")}
