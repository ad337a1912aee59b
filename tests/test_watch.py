"""Watching: figures, intervals, changes and refits on engines whose truth is known, recordings, the CLI."""

from __future__ import annotations

import itertools
import json
import math
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fake_counters import counted, exposition, rounds
from planner import cli
from planner.spec import SpecError, parse
from planner.system.resolve import resolve
from planner.traffic import workload
from planner.watching.observe import Histogram, histogram, observe
from planner.watching.predict import Levels, levelled, load_of, predict, refit
from planner.watching.scrape import Head, Plan, Recorder, Round, Scrape, read_recording
from planner.watching.statistics import Sums, follow, half_width
from planner.watching.watch import State, advance, coverage

SPEC = """
name: watched
model: llama-3.1-8b
hardware: h200
profile: h200x2-llama-3.1-8b-tp1
deployment: {mode: aggregated, replicas: 1}
workload: {kind: poisson, rate: 4, requests: 1400, prompt_tokens: {kind: lognormal, mean: 1000, sigma: 0.5, max: 6000},
           output_tokens: {kind: lognormal, mean: 60, sigma: 0.4, max: 400}}
run: {step_records: false}
"""
EVERY_S = 10.0
TRUE = Levels(1.4, 0.8)


def served(levels: Levels, seed: int = 0, sets: Sequence[str] = (), **traffic: object) -> pd.DataFrame:
    """Requests as an engine serves them whose steps take so many times as long as the profile says."""
    from simulator.backend import SimulatorBackend

    spec = parse(
        SPEC, "test", [*sets, f"run.seed={seed}", *(f"workload.{name}={value}" for name, value in traffic.items())]
    )
    return SimulatorBackend().run(levelled(resolve(spec), levels), workload.build(spec)).requests


def intervals(table: pd.DataFrame):
    found = rounds(table, EVERY_S)
    return [observe(a, b) for a, b in itertools.pairwise(found)]


def watched(table: pd.DataFrame):
    state, lines = State(), []
    system = resolve(parse(SPEC))
    for one in intervals(table):
        state, line = advance(state, one, system)
        lines.append(line)
    return state, lines


@pytest.fixture(scope="module")
def other_engine() -> pd.DataFrame:
    return served(TRUE)


# --- figures -----------------------------------------------------------------------------------


def test_a_histogram_comes_back_from_its_samples() -> None:
    values = np.array([150.0, 250.0, 250.0, 4000.0])
    found = histogram(counted("vllm:request_prompt_tokens", values), "vllm:request_prompt_tokens")
    assert (found.count, found.mean) == (4, values.mean())
    assert found.quantile(0.5) == pytest.approx(350)  # halfway through the two of 200 to 500
    assert math.isnan(Histogram().mean)


def test_draws_have_the_mean_and_stay_in_order_of_size() -> None:
    found = Histogram((100.0, 200.0, math.inf), (5.0, 5.0, 0.0), 1400.0)
    drawn = found.draws(1000, np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(140)
    assert 0.4 < (drawn < 0.93 * 100 * 140 / 100).mean() < 0.6
    assert set(Histogram((100.0, 200.0), (0.0, 7.0), 7 * 128.0).draws(3, np.random.default_rng(0))) == {128.0}


def test_a_restarted_engine_ends_the_interval() -> None:
    one, other = (
        Round(at, (Scrape(at, "a", "aggregated", {"vllm:prompt_tokens_total": value}),))
        for at, value in ((0.0, 10.0), (1.0, 4.0))
    )
    assert observe(one, other) is None
    assert observe(one, replace(one, time_s=1.0)) is not None


def test_the_conformal_width_is_the_ranked_score() -> None:
    assert half_width([0.1] * 8) is None
    assert half_width([-0.3, *[0.1] * 8]) == 0.3  # of nine, the ninth
    assert half_width([0.01 * n for n in range(19)]) == pytest.approx(0.17)  # of 19, the 18th


def test_conformal_intervals_cover_what_they_promise() -> None:
    rng = np.random.default_rng(1)
    scores = rng.standard_t(3, size=4000) * 0.1
    held = [abs(scores[at]) <= half_width(scores[at - 60 : at].tolist()) for at in range(60, len(scores))]  # type: ignore[operator]
    assert 0.88 < np.mean(held) < 0.93


def test_a_shift_is_noticed_and_noise_is_not() -> None:
    rng = np.random.default_rng(2)
    sums, noticed = Sums(), []
    for at, z in enumerate(np.concatenate([rng.normal(0, 1, 60), rng.normal(2.5, 1, 12)])):
        sums = follow(sums, float(z), float(at))
        if sums.since_s is not None:
            noticed.append((at, sums.since_s))
    assert 60 < noticed[0][0] < 66
    assert 50 <= noticed[0][1] <= 62


# --- prediction and refit ----------------------------------------------------------------------


def test_requests_are_those_that_were_observed(other_engine: pd.DataFrame) -> None:
    seen = intervals(other_engine)[:20]
    load = load_of(seen, resolve(parse(SPEC)))
    sent = other_engine[other_engine["arrival_s"] <= 200]
    assert len(load.arrivals) == len(sent)
    assert np.mean([one.request.prompt_tokens for one in load.arrivals]) == pytest.approx(
        sent["prompt_tokens"].mean(), rel=0.05
    )
    assert load_of(seen, resolve(parse(SPEC))).arrivals == load.arrivals


def test_levels_are_found_again(other_engine: pd.DataFrame) -> None:
    seen = intervals(other_engine)[2:14]
    found = refit(seen, resolve(parse(SPEC)), Levels())
    assert found.prompts == pytest.approx(TRUE.prompts, rel=0.12)
    assert found.decodes == pytest.approx(TRUE.decodes, rel=0.12)
    said = predict(seen, resolve(parse(SPEC)), TRUE)
    ratios = [one["tpot"] / two.tpot_s for one, two in zip(said, seen, strict=True)]
    assert np.median(ratios) == pytest.approx(1, abs=0.05)


def test_a_steady_engine_is_covered_and_left_alone(other_engine: pd.DataFrame) -> None:
    state, lines = watched(other_engine)
    share = coverage(state)
    assert share is not None and 0.82 <= share <= 1.0
    assert sum(count for _, count in state.covered.values()) > 60
    events = [text for line in lines for text in line.events]
    assert not [text for text in events if "The engines are" in text]
    assert not [text for text in events if "traffic changed" in text]


def test_it_notices_that_the_engine_became_slower() -> None:
    quick, slow = served(TRUE), served(Levels(2.4, 2.0), seed=1)
    last = quick["finish_s"].max()
    quick = quick[quick["finish_s"] < 150]
    slow = slow[slow["arrival_s"] < 150]
    times = ["arrival_s", "first_token_s", "finish_s"]
    slow = slow.assign(**{name: slow[name] + 150 for name in times})
    assert last > 150
    _, lines = watched(pd.concat([quick, slow], ignore_index=True))
    told = [(at, text) for at, line in enumerate(lines) for text in line.events if "engines are slower" in text]
    assert told and 14 <= told[0][0] <= 19, told
    assert lines[-1].levels.decodes == pytest.approx(2.0, rel=0.25)


def test_it_notices_that_the_traffic_changed() -> None:
    calm, busy = served(TRUE), served(TRUE, seed=1, rate=9)
    times = ["arrival_s", "first_token_s", "finish_s"]
    busy = busy.assign(**{name: busy[name] + 150 for name in times})
    _, lines = watched(pd.concat([calm[calm["arrival_s"] < 150], busy[busy["arrival_s"] < 250]], ignore_index=True))
    told = [(at, text) for at, line in enumerate(lines) for text in line.events if "traffic changed" in text]
    assert told and 15 <= told[0][0] <= 19, told
    assert not [text for line in lines for text in line.events if "engines are" in text]


# --- recordings and the command ----------------------------------------------------------------


def record(path: Path, found: list[Round]) -> Path:
    with Recorder(path, Head(SPEC, EVERY_S, "made for a test")) as recorder:
        for one in found:
            recorder.add(one)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_recording_gives_its_rounds_back(tmp_path: Path, other_engine: pd.DataFrame, name: str) -> None:
    found = rounds(other_engine, EVERY_S)[:6]
    head, back = read_recording(record(tmp_path / name, found))
    assert head == Head(SPEC, EVERY_S, "made for a test")
    assert list(back) == found


def test_a_recording_that_was_cut_off_ends_before_the_cut(tmp_path: Path, other_engine: pd.DataFrame) -> None:
    path = record(tmp_path / "a.jsonl", rounds(other_engine, EVERY_S)[:4])
    path.write_bytes(path.read_bytes()[:-20])
    assert len(list(read_recording(path)[1])) == 3


@pytest.mark.parametrize("text", ["", "{}\n", '{"schema":1,"config":"x","interval_s":1}\n{"round":1}\n'])
def test_other_files_are_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(SpecError, match="a.jsonl"):
        list(read_recording(tmp_path / "a.jsonl")[1])


def test_replay_prints_lines_and_writes_parquet(
    tmp_path: Path, other_engine: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    path = record(tmp_path / "a.jsonl", rounds(other_engine, EVERY_S)[:18])
    assert cli.run(["watch", "--replay", str(path), "--out", str(tmp_path / "out"), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    table = pd.read_parquet(tmp_path / "out")
    assert len(lines) == len(table) == 17
    assert table["tpot_s_measured"].tolist() == [line["tpot_s_measured"] for line in lines]
    assert lines[-1]["tpot_s_low"] <= lines[-1]["tpot_s_predicted"] <= lines[-1]["tpot_s_high"]
    assert cli.run(["watch", "--replay", str(path)]) == 0
    out = capsys.readouterr().out
    assert "Refitted on the last 4 intervals" in out
    assert "The 90 % intervals held" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--endpoint: missing"),
        (["disagg", "--metrics", "http://127.0.0.1:1"], "of which pool?"),
        (["disagg", "--metrics", "prefill=http://127.0.0.1:1"], "no decode engine"),
        (["agg", "--metrics", "decode=http://127.0.0.1:1"], "has no decode pool"),
        (["--metrics", "127.0.0.1:1"], "--metrics 127.0.0.1:1: is no URL"),
        (
            ["disagg", "--endpoint", "http://127.0.0.1:1"],
            "--endpoint http://127.0.0.1:1: of which pool?",
        ),
        (["--replay", "nothing.jsonl"], "no such file"),
    ],
)
def test_mistakes_are_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["watch", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_the_exposition_is_read_as_the_samples_are_named(other_engine: pd.DataFrame) -> None:
    scrape = pytest.importorskip("live.scrape", reason="the frontend extra is not installed")
    from fake_counters import counters

    values = counters(other_engine, 60.0) | {"vllm:prompt_tokens_by_source_total[local_compute]": 5.0}
    assert scrape.samples("# HELP x y\nother_total 3\n" + exposition(values)) == values
    with pytest.raises(ValueError, match="much"):  # such an engine counts as one that does not answer
        scrape.samples('vllm:e2e_request_latency_seconds_bucket{le="much"} 1\n')


def test_a_running_engine_is_watched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A fake engine on a real socket, with requests while it is watched."""
    pytest.importorskip("aiohttp", reason="the frontend extra is not installed")
    import asyncio

    from aiohttp import ClientSession

    from fake_engine import FakeEngine

    ready, stop = threading.Event(), threading.Event()
    where: list[str] = []

    async def serve() -> None:
        async with FakeEngine(ttft_s=0.02, itl_s=0.004) as engine, ClientSession() as session:
            where.append(engine.url)
            ready.set()
            body = {"model": "fake", "prompt": "one two three", "max_tokens": 5, "stream": True}
            while not stop.is_set():
                async with session.post(f"{engine.url}/v1/completions", json=body) as answer:
                    await answer.read()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(10)
        words = ["--endpoint", where[0], "--every", "1", "--intervals", "3", "--record", str(tmp_path / "a.jsonl")]
        assert cli.run(["watch", "agg", *words, "--no-save", "--json"]) == 0
    finally:
        stop.set()
        thread.join()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 3
    assert all(10 < line["arrivals"] < 30 and line["ttft_s_measured"] > 0.019 for line in lines), lines
    assert cli.run(["watch", "--replay", str(tmp_path / "a.jsonl"), "--json"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == lines


# --- what ships, and what a change buys --------------------------------------------------------


def test_the_recording_that_ships_is_a_pair_that_is_held(capsys: pytest.CaptureFixture[str]) -> None:
    """A real pair on two busy cores, its load changed and its decode engine held up: figures of docs/watch.md."""
    assert cli.run(["watch", "--replay", "pair", "--no-save"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    share = float(out.split("The 90 % intervals held ")[1].split(" %")[0])
    assert 85 <= share <= 95
    assert "The traffic changed since 09:58:11: 3.5 requests a second, it was 1.4." in out
    assert "It is P/D: decode engines compute 0 % of the prompt tokens" in out


def test_a_worker_for_the_bottleneck_gains_most() -> None:
    from planner.watching.gains import candidates, what_changes_buy

    text = SPEC.replace("{mode: aggregated, replicas: 1}", "{mode: disaggregated}")
    spec = parse(
        text, "test", ["deployment.link.connector=NixlPushConnector", "slo.ttft_ms=2000", "slo.attainment=0.9"]
    )
    assert {name for name, _ in candidates(spec)} >= {"one more prefill worker", "max_num_batched_tokens 1024"}
    seen = intervals(served(Levels(), prompt_tokens=4000, output_tokens=8, requests=300))
    found = what_changes_buy(spec, seen, Levels())
    assert found.changes[0].what == "one more prefill worker"
    assert found.changes[0].more_gpus == 1
    assert 0.6 < found.changes[0].gain.value < 1.8
    assert found.changes[0].gain.low > 0


# --- did it help? ------------------------------------------------------------------------------


BUDGET = "engine.max_num_batched_tokens=256"
CHANGE_S = 110


@pytest.mark.parametrize(
    ("really", "said"),
    [(BUDGET, "It did what was predicted."), ("", "Nothing of it is seen: do the engines run it?")],
)
def test_a_change_is_held_against_its_prediction(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], really: str, said: str
) -> None:
    """A small token budget that the engines really have, and one that only the plan has."""
    found = slowed(really)
    at = next(at for at, one in enumerate(found) if one.time_s >= 1e9 + CHANGE_S)
    earlier, later = record(tmp_path / "a.jsonl", found[: at + 1]), record(tmp_path / "b.jsonl", found[at + 1 :])
    words = ["watch", "--replay", str(later), "--before", str(earlier), "--no-save", "--set", BUDGET]
    assert cli.run([*words, "--record", str(tmp_path / "c.jsonl")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "engine.max_num_batched_tokens unset to 256" in out
    assert said in out
    kept = [one for one in read_recording(tmp_path / "c.jsonl")[1] if isinstance(one, Plan)]
    assert [one.time_s for one in kept] == [found[at + 1].time_s] and "max_num_batched_tokens: 256" in kept[0].config


def test_a_real_engine_whose_budget_was_cut_is_held_against_its_prediction(capsys: pytest.CaptureFixture[str]) -> None:
    """Recorded on busy cores, where only the time to the first token is sure to change."""
    assert cli.run(["watch", "--replay", "small-budget", "--no-save", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["changed"]
    assert found["what"] == "engine.max_num_batched_tokens unset to 64"
    ttft = found["effects"][0]
    assert ttft["metric"] == "ttft" and ttft["as_predicted"]
    assert min(ttft["measured"]["low"], ttft["predicted"]["low"]) > 0


def slowed(after: str) -> list[Round]:
    """An engine that has other settings from CHANGE_S on, for as long again."""
    first, then = served(TRUE, requests=1200, rate=9), served(TRUE, 1, [after] if after else [], requests=1200, rate=9)
    then = then.assign(**{name: then[name] + CHANGE_S for name in ("arrival_s", "first_token_s", "finish_s")})
    both = [first[first["finish_s"] < CHANGE_S], then[then["arrival_s"] < 2 * CHANGE_S]]
    return rounds(pd.concat(both, ignore_index=True), EVERY_S)


def test_without_traffic_no_change_is_asked_for() -> None:
    from planner.watching.gains import watched_spec

    with pytest.raises(SpecError, match="no request ended"):
        watched_spec(parse(SPEC), [])
