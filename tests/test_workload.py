"""The requests of a spec: lengths, arrivals, who shares what."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.spec import Distribution, Empirical, Fixed, Lognormal, Spec, SpecError, Uniform, load
from planner.traffic.contents import shared_runs
from planner.traffic.random_streams import draw, draw_tokens, long_run_mean, stream
from planner.traffic.requests import Arrival, Load, Request, Segments, WithLengths, warnings_of
from planner.traffic.workload import at_rate, build, offered_rate, popular_documents

OPEN = ("poisson", "gamma", "constant")


def spec(kind: str, seed: int = 0, retrieval: dict[str, Any] | None = None, **workload: Any) -> Spec:
    return Spec.model_validate(
        {
            "schema": 1,
            "name": "test",
            "deployment": {"mode": "aggregated"},
            "workload": {"kind": kind, **workload},
            "retrieval": retrieval,
            "run": {"seed": seed},
        }
    )


def play(load: Load, service_s: Callable[[Request], float] = lambda request: 1.0) -> list[Arrival]:
    """All arrivals of a load whose requests each take `service_s`, in time order."""
    sent = load.start()
    ends = [(arrival.time_s + service_s(arrival.request), n, arrival.request) for n, arrival in enumerate(sent)]
    heapq.heapify(ends)
    while ends:
        time_s, _, request = heapq.heappop(ends)
        for arrival in load.finished(request, time_s):
            assert arrival.time_s >= time_s
            heapq.heappush(ends, (arrival.time_s + service_s(arrival.request), len(sent), arrival.request))
            sent.append(arrival)
    return sorted(sent, key=lambda arrival: arrival.time_s)


def times(load: Load) -> np.ndarray[Any, Any]:
    return np.array([arrival.time_s for arrival in load.start()])


# --- distributions -----------------------------------------------------------------------------


def test_lognormal_has_the_mean_that_was_asked_for() -> None:
    values = draw(Lognormal(mean=1155, sigma=0.9), 200_000, stream(1, "x"))
    assert np.mean(values) == pytest.approx(1155, rel=0.02)
    assert np.std(np.log(values)) == pytest.approx(0.9, rel=0.02)


def test_lognormal_is_cut() -> None:
    values = draw_tokens(Lognormal(mean=100, sigma=2, min=50, max=300), 1000, stream(1, "x"), "here")
    assert (min(values), max(values)) == (50, 300)


def test_uniform_tokens_hit_every_whole_number_equally() -> None:
    values, counts = np.unique(draw_tokens(Uniform(low=3, high=6), 40_000, stream(1, "x"), "here"), return_counts=True)
    assert values.tolist() == [3, 4, 5, 6]
    assert counts == pytest.approx([10_000] * 4, rel=0.05)


def test_empirical_follows_its_weights() -> None:
    values = draw_tokens(Empirical(values=(10, 20), weights=(1, 3)), 40_000, stream(1, "x"), "here")
    assert np.mean(values) == pytest.approx(17.5, rel=0.01)


def test_lengths_are_at_least_one_token() -> None:
    assert set(draw_tokens(Empirical(values=(0, 0.2)), 20, stream(1, "x"), "here")) == {1}


def test_uniform_without_a_whole_number_is_an_error() -> None:
    with pytest.raises(SpecError, match=r"^workload.prompt_tokens: .*\[0.2, 0.8\]$"):
        build(spec("poisson", prompt_tokens={"kind": "uniform", "low": 0.2, "high": 0.8}))


# --- arrivals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("burstiness", "cv"), [(0.25, 2.0), (1.0, 1.0), (4.0, 0.5)])
def test_gamma_gaps(burstiness: float, cv: float) -> None:
    gaps = np.diff(times(build(spec("gamma", rate=8.0, requests=40_000, burstiness=burstiness))))
    assert np.mean(gaps) == pytest.approx(1 / 8, rel=0.03)
    assert np.std(gaps) / np.mean(gaps) == pytest.approx(cv, rel=0.03)


def test_poisson_is_gamma_of_burstiness_one() -> None:
    poisson, gamma = build(spec("poisson", rate=3.0)), build(spec("gamma", rate=3.0, burstiness=1.0))
    assert poisson.start() == gamma.start()


def test_poisson_counts_have_equal_mean_and_variance() -> None:
    counts = np.bincount(times(build(spec("poisson", rate=10.0, requests=50_000))).astype(int))[:-1]
    assert np.var(counts) == pytest.approx(np.mean(counts), rel=0.06)


def test_constant_gaps() -> None:
    assert times(build(spec("constant", rate=4.0, requests=5))).tolist() == [0, 0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("kind", OPEN)
def test_same_seed_same_requests_other_seed_others(kind: str) -> None:
    varied = {"rate": 5.0, "requests": 50, "prompt_tokens": {"kind": "lognormal", "mean": 500, "sigma": 1}}
    assert build(spec(kind, 3, **varied)).start() == build(spec(kind, 3, **varied)).start()
    assert build(spec(kind, 3, **varied)).start() != build(spec(kind, 4, **varied)).start()


@pytest.mark.parametrize("kind", OPEN)
def test_rate_only_scales_time(kind: str) -> None:
    """Common random numbers: the same requests in the same order, gaps scaled."""
    varied = {"requests": 50, "prompt_tokens": {"kind": "lognormal", "mean": 500, "sigma": 1}}
    slow, fast = build(spec(kind, rate=2.0, **varied)), build(spec(kind, rate=10.0, **varied))
    assert [a.request for a in slow.start()] == [a.request for a in fast.start()]
    assert times(slow) == pytest.approx(times(fast) * 5)


def test_changing_one_quantity_leaves_the_others() -> None:
    lengths = {"kind": "lognormal", "mean": 500, "sigma": 1}
    one = build(spec("poisson", prompt_tokens=lengths, output_tokens=lengths)).start()
    two = build(spec("poisson", prompt_tokens=900, output_tokens=lengths)).start()
    assert [(a.time_s, a.request.output_tokens) for a in one] == [(a.time_s, a.request.output_tokens) for a in two]


def test_concurrency_keeps_its_number_in_flight() -> None:
    sent = play(build(spec("concurrency", concurrency=3, requests=10)), lambda request: 1.0 + request.request_id)
    assert len(sent) == 10
    starts = [arrival.time_s for arrival in sent]
    ends = [arrival.time_s + 1.0 + arrival.request.request_id for arrival in sent]
    for moment in starts:
        assert sum(start <= moment < end for start, end in zip(starts, ends, strict=True)) <= 3
    assert starts[:4] == [0, 0, 0, 1.0]


def test_max_tokens_caps_the_output() -> None:
    requests = [a.request for a in build(spec("poisson", requests=5, output_tokens=128, max_tokens=100)).start()]
    assert {(r.output_tokens, r.max_tokens) for r in requests} == {(100, 100)}
    requests = [a.request for a in build(spec("poisson", requests=5, output_tokens=128, max_tokens=500)).start()]
    assert {(r.output_tokens, r.max_tokens) for r in requests} == {(128, 500)}


# --- contents ----------------------------------------------------------------------------------

LOADS = st.one_of(
    st.builds(
        lambda prefix, prompt, seed: spec(
            "poisson", seed, requests=20, shared_prefix_tokens=min(prefix, prompt),
            prompt_tokens={"kind": "uniform", "low": 1, "high": prompt},
        ),
        st.integers(0, 50), st.integers(1, 100), st.integers(0, 9),
    ),
    st.builds(
        lambda system, turns, seed: spec(
            "sessions", seed, rate=1.0, sessions=8, system_tokens=system,
            turns={"kind": "uniform", "low": 1, "high": turns},
            prompt_tokens={"kind": "lognormal", "mean": 30, "sigma": 1},
        ),
        st.integers(0, 20), st.integers(1, 6), st.integers(0, 9),
    ),
    st.builds(
        lambda system, top_k, order, seed: spec(
            "rag", seed, {"top_k": top_k, "chunk_tokens": 16, "order": order, "popularity": {"documents": 6}},
            rate=1.0, requests=20, system_tokens=system,
        ),
        st.integers(0, 20), st.integers(1, 6), st.sampled_from(["rank", "canonical"]), st.integers(0, 9),
    ),
    st.builds(
        lambda users, rounds: spec("multi_round_qa", num_users=users, num_rounds=rounds, qps=2.0, time=10.0),
        st.integers(1, 8), st.integers(1, 4),
    ),
)  # fmt: skip


def common_prefix(one: Segments, two: Segments) -> int:
    """Tokens that two prompts begin with alike."""
    shared = 0
    for (content, tokens), (other, others_tokens) in zip(one, two, strict=False):
        if content != other:
            break
        shared += min(tokens, others_tokens)
        if tokens != others_tokens:
            break
    return shared


@given(LOADS)
def test_requests_are_consistent(given_spec: Spec) -> None:
    sent = play(build(given_spec))
    requests = {arrival.request.request_id: arrival.request for arrival in sent}
    assert len(requests) == len(sent)
    for request in requests.values():
        assert sum(tokens for _, tokens in request.segments) == request.prompt_tokens
        assert all(tokens > 0 for _, tokens in request.segments)
        assert 0 <= request.shared_tokens <= request.prompt_tokens
        assert 1 <= request.output_tokens <= request.max_tokens
        contents = {content for content, _ in request.segments}
        assert request.output_content not in contents
        for content, earlier in request.history:
            assert content in contents
            assert requests[earlier].output_content == content


@given(LOADS)
def test_nothing_beyond_shared_tokens_occurs_in_another_request(given_spec: Spec) -> None:
    requests = [a.request for a in play(build(given_spec))]
    for request in requests:
        others = [other for other in requests if other is not request]
        longest = max((common_prefix(request.segments, other.segments) for other in others), default=0)
        assert longest <= request.shared_tokens
        if not request.output_shared:
            assert all(request.output_content not in dict(other.segments) for other in others)


def test_shared_runs_follow_the_prefix_not_single_segments() -> None:
    assert shared_runs([(1, 2, 3), (1, 3), (2, 3), (1, 2), (4, 4)]) == [2, 1, 0, 2, 0]


def test_one_request_shares_nothing() -> None:
    (arrival,) = build(spec("poisson", requests=1, shared_prefix_tokens=100)).start()
    assert arrival.request.shared_tokens == 0


# --- sessions ----------------------------------------------------------------------------------


def test_a_turn_repeats_the_whole_history() -> None:
    load = build(spec("sessions", rate=1.0, sessions=3, turns=3, system_tokens=10, prompt_tokens=20, output_tokens=5))
    sent = play(load)
    assert len(sent) == load.expected_requests == 9
    turns = [a.request for a in sent if a.request.session_id == 1]
    assert [r.prompt_tokens for r in turns] == [30, 55, 80]
    assert [r.shared_tokens for r in turns] == [30, 55, 60]
    assert [r.output_shared for r in turns] == [True, True, False]
    for earlier, later in itertools.pairwise(turns):
        whole = (*earlier.segments, (earlier.output_content, 5))
        assert later.segments[: len(whole)] == whole
        assert later.history == (*earlier.history, (earlier.output_content, earlier.request_id))


def test_the_next_turn_waits_for_the_think_time() -> None:
    sent = play(build(spec("sessions", rate=1.0, sessions=1, turns=3, think_time_s=2.5)), lambda request: 4.0)
    assert np.diff([a.time_s for a in sent]) == pytest.approx([6.5, 6.5])


def test_session_lengths_do_not_depend_on_the_order_of_finishing() -> None:
    varied = spec("sessions", rate=5.0, sessions=20, turns={"kind": "uniform", "low": 1, "high": 5})
    quick = {a.request.request_id: a.request for a in play(build(varied), lambda request: 0.01)}
    uneven = {a.request.request_id: a.request for a in play(build(varied), lambda r: 100.0 / (1 + r.session_id))}
    assert quick == uneven


# --- retrieval ---------------------------------------------------------------------------------


def test_documents_are_distinct_and_zipf_popular() -> None:
    rows = popular_documents(4000, 1000, 1.0, 4, seed=0)
    assert all(len(set(row)) == 4 for row in rows)
    first = np.bincount([row[0] for row in rows], minlength=1000) / 4000
    weights = 1 / np.arange(1, 1001)
    assert first[:3] == pytest.approx(weights[:3] / weights.sum(), rel=0.15)


def test_second_document_is_drawn_without_replacement() -> None:
    rows = popular_documents(20_000, 3, 1.0, 3, seed=0)
    p = np.array([6, 3, 2]) / 11
    second_is_first = sum(row[1] == 0 for row in rows) / 20_000
    assert second_is_first == pytest.approx(sum(p[i] * p[0] / (1 - p[i]) for i in (1, 2)), rel=0.05)


def test_steep_popularity_still_gives_all_documents() -> None:
    assert {tuple(sorted(row)) for row in popular_documents(50, 8, 6.0, 8, seed=0)} == {tuple(range(8))}


def test_rag_prompt_and_order() -> None:
    retrieval = {"top_k": 3, "chunk_tokens": 100, "order": "canonical", "popularity": {"documents": 9}}
    requests = [a.request for a in build(spec("rag", 0, retrieval, rate=1.0, requests=30, question_tokens=7)).start()]
    assert {r.prompt_tokens for r in requests} == {200 + 300 + 7}
    assert all(r.documents == tuple(sorted(r.documents)) for r in requests)
    assert all(r.known_prefix_tokens is None for r in requests)
    by_documents = {r.documents: r.segments[:-1] for r in requests}
    assert all(r.segments[:-1] == by_documents[r.documents] for r in requests)


def test_canonical_order_shares_more() -> None:
    shared = {}
    for order in ("rank", "canonical"):
        retrieval = {"top_k": 4, "order": order, "popularity": {"documents": 20}}
        shared[order] = sum(
            a.request.shared_tokens for a in build(spec("rag", 0, retrieval, rate=1.0, requests=200)).start()
        )
    assert shared["canonical"] > shared["rank"]


def test_retrieval_on_the_prefill_worker_hides_the_documents_from_the_router() -> None:
    load = build(spec("rag", 0, {"at": "prefill_worker"}, rate=1.0, requests=3, system_tokens=77))
    assert {a.request.known_prefix_tokens for a in load.start()} == {77}


def test_more_chunks_than_documents_is_an_error() -> None:
    with pytest.raises(SpecError, match=r"^retrieval\.top_k: 5 chunks of 4 documents"):
        build(spec("rag", 0, {"top_k": 5, "popularity": {"documents": 4}}, rate=1.0))


# --- rates -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OPEN)
def test_scaled_open_loop(kind: str) -> None:
    at_7 = at_rate(spec(kind, rate=2.0), 7.0)
    assert offered_rate(at_7) == 7.0
    assert [a.request for a in build(at_7).start()] == [a.request for a in build(spec(kind, rate=2.0)).start()]


def test_sessions_offer_their_turns() -> None:
    many = spec("sessions", rate=2.0, turns=5)
    assert offered_rate(many) == pytest.approx(10.0)
    assert offered_rate(at_rate(many, 3.0)) == pytest.approx(3.0)


def test_a_closed_loop_has_no_rate() -> None:
    closed = spec("concurrency", concurrency=4)
    assert offered_rate(closed) is None
    with pytest.raises(SpecError, match=r"^workload\.kind: 'concurrency'"):
        at_rate(closed, 1.0)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_scaled_refuses_impossible_rates(rate: float) -> None:
    with pytest.raises(SpecError, match=r"^workload\.rate: "):
        at_rate(spec("poisson"), rate)


def test_lengths_that_happened_replace_the_planned_ones() -> None:
    def planned() -> Load:
        return build(spec("poisson", rate=5, requests=3, prompt_tokens=40, output_tokens=8))

    plain = [arrival.request for arrival in planned().start()]
    first, second, third = (request.request_id for request in plain)
    load = WithLengths(planned(), {first: (47, 8), second: (30, 3), third: (40, 8)})
    longer, shorter, same = (arrival.request for arrival in load.start())
    assert (longer.prompt_tokens, longer.output_tokens, sum(n for _, n in longer.segments)) == (47, 8, 47)
    assert (shorter.prompt_tokens, shorter.output_tokens, sum(n for _, n in shorter.segments)) == (30, 3, 30)
    assert same == plain[2]
    assert load.changed == 2
    assert load.finished(longer, 1.0) == []


@pytest.mark.parametrize(
    "length",
    [
        Lognormal(mean=1155, sigma=0.9, max=9240),
        Lognormal(mean=100, sigma=1.5, min=50, max=300),
        Lognormal(mean=100, sigma=0.0, max=70),
        Uniform(low=10, high=1000),
        Empirical(values=(1.0, 100.0), weights=(3.0, 1.0)),
        Fixed(value=7),
    ],
)
def test_the_mean_of_many_draws_is_worked_out(length: Distribution) -> None:
    assert long_run_mean(length) == pytest.approx(draw(length, 400_000, stream(1, "any")).mean(), rel=0.01)


def test_a_warm_up_that_leaves_no_request_is_refused() -> None:
    assert build(load("agg", ["run.warmup_requests=499"])).expected_requests == 500
    with pytest.raises(
        SpecError, match="warmup_requests: 500 leaves none of 500 requests to count; allowed: up to 499"
    ):
        build(load("agg", ["run.warmup_requests=500"]))


def test_a_list_far_from_the_mean_asked_for_says_so() -> None:
    """Seed 0 draws 1,309 for 1,155 in 200 requests; 20,000 are close. A cut that moves the mean is said, too."""
    chat = "workload={kind: poisson, rate: 9, output_tokens: 9, prompt_tokens: {kind: lognormal, mean: 1155, sigma: 0.9"
    (said,) = warnings_of(build(load("agg", [chat + "}, requests: 200}"])))
    assert "workload.prompt_tokens: the 200 drawn have a mean of 1,3" in said and "many would have 1,155" in said
    assert warnings_of(build(load("agg", [chat + "}, requests: 20000}"]))) == ()
    (said,) = warnings_of(build(load("agg", [chat + ", max: 1200}, requests: 20000}"])))
    assert "cut to its min and max, the mean is 768 tokens instead of 1,155" in said
