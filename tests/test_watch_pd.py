"""Is it P/D? Four pairs in counters: a true one, one without its connector, one whose decode engine prefills, one whose
link is overloaded; and benchmarks of which only the gaps between tokens are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fake_counters import counted, pair
from planner import cli
from planner.spec import load
from planner.system.resolve import resolve
from planner.watching.observe import observe
from planner.watching.pd import Gaps, Seen, Verdict, evidence, from_aggregates, judge
from planner.watching.scrape import Head, Recorder, Round

SYSTEM = resolve(load("disagg"))
COUNT, PROMPT, OUTPUT, SECONDS = 200, 3000, 100, 60.0
KV = SYSTEM.kv_bytes_per_token
SOURCE = "vllm:prompt_tokens_by_source_total"
STEP_S, PREFILL_S = 0.0075, 0.16


def served(computed: float, tpot_s: float, stalls: float) -> dict[str, float]:
    """A decode engine: `computed` of its prompts itself, and so many stalls of a prompt's length a request."""
    gaps = np.full(COUNT * (OUTPUT - 1), tpot_s)
    gaps[: int(stalls * COUNT)] = PREFILL_S
    sums = {"ttft": 0.05, "e2e": 0.05 + tpot_s * OUTPUT}
    own = round(computed * COUNT)
    return {
        "vllm:num_requests_running": 4.0,
        "vllm:num_requests_waiting": 0.0,
        "vllm:num_requests_waiting_by_reason[deferred]": 0.0,
        "vllm:generation_tokens_total": float(COUNT * OUTPUT),
        "vllm:iteration_tokens_total_count": COUNT * OUTPUT / 4,
        "vllm:prompt_tokens_total": float(COUNT * PROMPT),
        f"{SOURCE}[local_compute]": float(own * PROMPT),
        f"{SOURCE}[external_kv_transfer]": float((COUNT - own) * PROMPT),
        **counted("vllm:request_prompt_tokens", np.full(COUNT, float(PROMPT))),
        **counted("vllm:request_generation_tokens", np.full(COUNT, float(OUTPUT))),
        **counted("vllm:time_to_first_token_seconds", np.full(COUNT, sums["ttft"])),
        **counted("vllm:e2e_request_latency_seconds", np.full(COUNT, sums["e2e"])),
        **counted("vllm:inter_token_latency_seconds", gaps),
        **moved(COUNT - own, 0.05),
    }


def moved(count: int, each_s: float) -> dict[str, float]:
    if not count:
        return {}
    sizes = {"bytes_transferred": KV * PROMPT, "xfer_time_seconds": each_s, "post_time_seconds": 0.038,
             "num_descriptors": 12_032.0}  # fmt: skip
    found = {f"vllm:nixl_{name}_sum": value * count for name, value in sizes.items()}
    return found | {f"vllm:nixl_{name}_count": float(count) for name in sizes}


def prefilled(share: float) -> dict[str, float]:
    count = round(COUNT * share)
    return {
        "vllm:num_requests_running": 1.0,
        "vllm:num_requests_waiting": 0.0,
        f"{SOURCE}[local_compute]": float(count * PROMPT),
        **counted("vllm:e2e_request_latency_seconds", np.full(count, PREFILL_S)),
    }


CASES: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "a true pair": (prefilled(1.0), served(0.0, STEP_S, 0.0)),
    "the connector is off": (prefilled(1.0), served(1.0, STEP_S, 4.0)),
    "the decode engines prefill": (prefilled(0.5), served(0.5, STEP_S, 3.0)),
    "the link is overloaded": (
        prefilled(1.0),
        served(0.0, STEP_S, 0.0) | moved(COUNT, 1.2)
        | {"vllm:num_requests_waiting": 14.0, "vllm:num_requests_waiting_by_reason[deferred]": 13.0},
    ),
}  # fmt: skip


def verdict(rounds: list[Round]) -> Verdict:
    observed = observe(*rounds)
    assert observed is not None
    return judge(evidence(Seen().plus(observed), SYSTEM))


@pytest.mark.parametrize("word", CASES)
def test_each_pair_is_called_what_it_is(word: str) -> None:
    assert verdict(list(pair(*CASES[word], SECONDS))).word == word


SHIPPED = {
    "pair": "a true pair",
    "no-connector": "the connector is off",
    "local-prefill": "the decode engines prefill",
    "slow-link": "the link is overloaded",
}


@pytest.mark.parametrize("name", SHIPPED)
def test_each_real_pair_is_called_what_it_was_made(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Recordings of vLLM on CPU cores (benchmarks/watch_run.py)."""
    assert cli.run(["watch", "--replay", name, "--pd", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pd"]["word"] == SHIPPED[name]


def test_the_evidence_is_that_of_the_counters() -> None:
    rounds = list(pair(*CASES["a true pair"], SECONDS))
    observed = observe(*rounds)
    assert observed is not None
    found = evidence(Seen().plus(observed), SYSTEM)
    assert found.computed_share == 0
    assert found.bytes_share == pytest.approx(1)
    assert found.post_each_s == pytest.approx(0.038 / 12_032)
    assert found.post_share == pytest.approx(COUNT * 0.038 / SECONDS)
    assert found.batch == pytest.approx(4)
    base, slope = SYSTEM.pools[1].profile.step.decode(4)
    assert found.plain_s == pytest.approx(base + slope * 4 * (PROMPT + OUTPUT / 2))


def test_who_waits_is_said() -> None:
    slow = verdict(list(pair(*CASES["the link is overloaded"], SECONDS)))
    assert "13 on a decode engine for their KV" in " ".join(slow.evidence)
    busy = prefilled(1.0) | {"vllm:num_requests_waiting": 9.0}
    assert "9 for a prefill engine" in " ".join(verdict(list(pair(busy, CASES["a true pair"][1], SECONDS))).evidence)
    assert "Nobody waits" in " ".join(verdict(list(pair(*CASES["a true pair"], SECONDS))).evidence)


def test_few_requests_say_nothing() -> None:
    few = {name: value * 0.04 if "running" not in name else value for name, value in CASES["a true pair"][1].items()}
    assert verdict(list(pair(prefilled(0.04), few, SECONDS))).word == "not known"


def test_the_estimators_of_stalls_are_right_for_two_kinds_of_gaps() -> None:
    """One gap in 50 is a stall of 160 ms, the others take 8 ms."""
    gaps = np.array([0.008] * 49 + [0.16])
    found = Gaps(float(gaps.mean()), float(np.median(gaps)), 0.16)
    beyond = (0.16 - 0.008) / gaps.sum()
    assert found.stalled_share == pytest.approx(beyond)
    assert found.stalls_a_token == pytest.approx(1 / 50, rel=0.06)


def test_a_benchmark_with_stalls_is_not_called_a_pair() -> None:
    assert from_aggregates(Gaps(0.0145, 0.0098, 0.140)).word == "the decode engines prefill"
    assert from_aggregates(Gaps(0.0101, 0.0098, 0.0115)).word == "a true pair"


def test_the_command_judges_a_published_pair(capsys: pytest.CaptureFixture[str]) -> None:
    """Half of the prompts on the decode engine, as the estimators' case above; and a line that is no benchmark's."""
    assert cli.run(["watch", "--gaps", "14.5,9.8,140"]) == 0
    assert capsys.readouterr().out.startswith("Its decode engines stall: 32.4 % of the time between tokens.")
    assert cli.run(["watch", "--gaps", "7.2,7.1,10.76"]) == 0
    assert capsys.readouterr().out.startswith("The gaps between tokens are those of engines that only decode.")
    assert cli.run(["watch", "--gaps", "7.2"]) == 2
    assert "allowed: MEAN,MEDIAN,P99" in capsys.readouterr().err


def test_the_command_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from planner.spec import dump

    path = tmp_path / "pair.jsonl"
    with Recorder(path, Head(dump(load("disagg")), SECONDS)) as recorder:
        for one in pair(*CASES["the decode engines prefill"], SECONDS):
            recorder.add(one)
    assert cli.run(["watch", "--replay", str(path), "--pd"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert out.startswith("It is P/D in part: decode engines compute 50 % of the prompt tokens themselves")
    assert cli.run(["watch", "--replay", str(path), "--pd", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["pd"]
    assert found["word"] == "the decode engines prefill" and len(found["evidence"]) > 2
    assert cli.run(["watch", "agg", "--replay", str(path), "--pd"]) == 2
