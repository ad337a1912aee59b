"""Launches: an engine written out step by step against the fit that reads it and the simulator that predicts it."""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Sequence as Items

import numpy as np
import pandas as pd
import pytest

from planner.calibration.fitting import fit_step, law_of, with_launches
from planner.calibration.launches import USUAL_STAY_S, LaunchFit, fit_launches, fit_levels, launch_rows
from planner.calibration.observations import from_steps
from planner.engine.law import StepLaw, waves
from planner.engine.profiles import capture_sizes
from planner.engine.step_time import AffineStep, StepTime
from planner.system.resolve import EngineLimits
from planner.traffic.requests import Request
from simulator.host_pace import HostPace
from simulator.worker import FINISHED, Decision, Sequence, Worker

SIZES = capture_sizes()
LARGEST = SIZES[-1]
LIMITS = EngineLimits(8192, 256, 16, 10_000, 8192, async_scheduling=True)
LAW = StepLaw(
    decode_s=5e-3,
    decode_per_seq_s=2e-5,
    decode_per_context_s=3e-8,
    decode_wide_per_seq_s=1.5e-5,
    prefill_floor_s=0.0,
    prefill_s=1e-3,
    prefill_per_token_s=2e-5,
    prefill_per_pair_s=1e-9,
    mixed_per_seq_s=2e-5,
    mixed_per_context_s=3e-8,
    launch_decode_s=2e-3,
    launch_graph_s=9e-3,
    launch_eager_s=20e-3,
    launch_per_seq_s=3e-5,
)
Step = tuple[int, int, int]  # prompt tokens (one whole prompt), decodes, their context


def gpu_s(law: StepTime, step: Step) -> float:
    tokens, batch, context = step
    if tokens:
        return law.mixed([(tokens, 0)], batch, context)
    base, slope = law.decode(batch)
    return base + slope * context


def engine(
    steps: Items[Step], law: StepTime, start_s: float = 0.0, gpu: Callable[[Step], float] | None = None
) -> tuple[list[float], list[float]]:
    """When an idle engine decides each of these steps, and when it sees the results."""
    launch = [law.launch(tokens, batch) for tokens, batch, _ in steps]
    decided, seen, done_s = [start_s], list[float](), -math.inf
    for at, step in enumerate(steps):
        head_s = law.launch(0, step[1])
        done_s = max(done_s, decided[at] + head_s) + (gpu_s(law, step) if gpu is None else gpu(step))
        if step[0]:
            done_s = max(done_s, decided[at] + launch[at])
        result_s = done_s
        if at + 1 < len(steps):
            decided.append(seen[at - 1] if at else start_s + launch[0])
            if step[0] or steps[at + 1][0]:
                result_s = max(done_s, decided[at + 1] + launch[at + 1])
        seen.append(result_s)
    return decided, seen


def table(bursts: Items[Items[Step]], law: StepTime) -> pd.DataFrame:
    """The steps table of such bursts, one after another with pauses, as the traced scheduler writes it."""
    rows = []
    for number, steps in enumerate(bursts):
        decided, seen = engine(steps, law, 10.0 * number)
        for at, (tokens, batch, context) in enumerate(steps):
            begin = max(decided[at], seen[at - 1]) if at else decided[0]
            rows.append(("w", decided[at], seen[at] - begin, tokens, tokens**2 / 2, batch, context))
    names = ["worker", "start_s", "duration_s", "prefill_tokens", "prefill_pairs", "decode_seqs", "context_tokens"]
    return pd.DataFrame(rows, columns=names)


def bursts() -> list[list[Step]]:
    """What a calibration sends: idle prompts, decodes, prompts into decodes."""
    found: list[list[Step]] = []
    for tokens in (16, 64, 256, 512, 1024, 2048, 4096, 8192):
        found += [[(tokens, 0, 0), (0, 1, tokens), (0, 1, tokens + 1)]] * 2
    for context in (128, 1024, 4096):
        for batch in (1, 2, 4, 8, 16, 32, 64, 128, 192, 256):
            found.append([(0, batch, batch * (context + step)) for step in range(8)])
        for batch in (4, 16, 64):
            for tokens in (32, 256, 512, 2048, 8192):
                before: list[Step] = [(0, batch, batch * (context + step)) for step in range(5)]
                after: list[Step] = [(0, batch + 1, batch * (context + 6) + tokens + step) for step in range(4)]
                found.append([*before, (tokens, batch, batch * (context + 5)), *after])
    return found


def test_a_scheduled_ahead_engine_gives_its_law_and_its_launches_back() -> None:
    steps = table(bursts(), AffineStep(LAW, SIZES))
    launches = fit_launches([steps], SIZES)
    assert launches is not None
    rows = from_steps(steps, SIZES, launches=launches)
    fitted = with_launches(fit_step(rows, floored=False), launches.values, launches.errors)
    found = law_of(fitted)
    for name, value in LAW.model_dump().items():
        assert getattr(found, name) == pytest.approx(value, rel=0.05, abs=1e-6), name
    assert set(launches.values) <= set(fitted.names)
    assert fitted.covariance.shape == (len(fitted.names),) * 2


def test_errors_of_launches_cover_what_they_were_made_of() -> None:
    """With a scatter of 10 % in each launch the truth is within two standard errors nearly always."""
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(40):
        law = Scattered(AffineStep(LAW, SIZES), rng)
        found = fit_launches([table(bursts(), law)], SIZES)
        assert found is not None
        name = "launch_eager_s"
        inside += abs(found.values[name] - LAW.launch_eager_s) <= 2 * found.errors[name] + 0.02 * LAW.launch_eager_s
    assert inside >= 34


def test_a_prompt_soon_after_another_shows_its_launch_too() -> None:
    """Two decode steps lie between them: whatever the first one did has ended when the second one is decided."""
    usual: list[Step] = [(0, 4, 4 * (1024 + step)) for step in range(6)]
    close: list[Step] = [(2048, 4, 5000), (0, 5, 8000), (0, 5, 8005), (2048, 5, 8010), (0, 6, 11_000), (0, 6, 11_006)]
    steps = table([[*usual, *close], [(0, 5, 5 * (1024 + step)) for step in range(6)]], AffineStep(LAW, SIZES))
    found = launch_rows(steps, LARGEST).query("kind == 'launch_eager_s'")
    assert found["seconds"].tolist() == pytest.approx(
        [LAW.launch_eager_s + count * LAW.launch_per_seq_s for count in (4, 5)], rel=0.01
    )


def test_a_launch_that_compiles_is_left_out_and_named() -> None:
    class Compiling(Scattered):
        def launch(self, tokens: int, batch: int) -> float:
            return 1.5 if (tokens, batch) == (2048, 16) else self._law.launch(tokens, batch)

    law = AffineStep(LAW, SIZES)
    found = fit_launches([table(bursts(), Compiling(law, np.random.default_rng(1)))], SIZES)
    assert found is not None
    assert found.compiled_s == pytest.approx([1.5] * 3)  # beside 16 decodes of each context
    assert found.values["launch_eager_s"] == pytest.approx(LAW.launch_eager_s, rel=0.02)


def test_kernels_that_outlast_their_launch_are_not_taken_for_the_next_one() -> None:
    """A mixture: few tokens read every expert. The host alone is measured, so that no decode follows another one."""
    law = AffineStep(LAW, SIZES)
    rows = []
    for number, tokens in enumerate((16, 64, 128, 256, 1024, 2048) * 6):
        decided, seen = engine([(tokens, 0, 0), (0, 1, tokens)], law, 10.0 * number, lambda step: 17e-3)
        rows += [("w", decided[0], seen[0] - decided[0], tokens, 0), ("w", decided[1], seen[1] - seen[0], 0, 1)]
    names = ["worker", "start_s", "duration_s", "prefill_tokens", "decode_seqs"]
    found = fit_launches([pd.DataFrame(rows, columns=names)], SIZES)
    assert found is not None
    assert found.values["launch_decode_s"] == pytest.approx(LAW.launch_decode_s + LAW.launch_per_seq_s, rel=0.02)


def test_launches_of_one_stay_tell_one_level() -> None:
    """The same launches are known less well close together in time than ten seconds apart."""
    far = table(bursts(), Scattered(AffineStep(LAW, SIZES), np.random.default_rng(2)))
    near = far.assign(start_s=far["start_s"] - 9.5 * (far["start_s"] // 10.0))
    one, other = (fit_launches([steps], SIZES) for steps in (far, near))
    assert one is not None
    assert other is not None
    assert one.values == pytest.approx(other.values)
    assert 1.1 * one.errors["launch_eager_s"] < other.errors["launch_eager_s"]
    assert other.errors["launch_decode_s"] == pytest.approx(one.errors["launch_decode_s"])


class Scattered:
    """Each launch takes up to 17 % more or less (10 % standard deviation) than the law says."""

    def __init__(self, law: AffineStep, rng: np.random.Generator) -> None:
        self.decode, self.mixed = law.decode, law.mixed
        self._law = law
        self._rng = rng

    def launch(self, tokens: int, batch: int) -> float:
        return self._law.launch(tokens, batch) * float(self._rng.uniform(0.83, 1.17))


def test_synchronous_steps_show_no_launch() -> None:
    law = AffineStep(LAW, SIZES)
    every = [step for burst in bursts() for step in burst]
    seconds = np.array([gpu_s(law, step) for step in every])
    starts = np.concatenate([[0.0], np.cumsum(seconds)[:-1]])
    columns = {"prefill_tokens": [step[0] for step in every], "decode_seqs": [step[1] for step in every]}
    steps = pd.DataFrame({"worker": "w", "start_s": starts, "duration_s": seconds, **columns})
    assert launch_rows(steps, LARGEST).empty
    assert fit_launches([steps], SIZES) is None


def simulated(law: AffineStep, fast: bool) -> tuple[list[Sequence], list[Decision], list[float]]:
    """Two requests decode; prompts of 600 and of 100 tokens come 0.1 ms apart, in time for two steps.

    Also what each step took, from the recorded rows.
    """
    trace: list[Decision] = []
    worker = Worker("w", LIMITS, law, fast_forward=fast, trace=None if fast else trace)
    lengths = ((16, 40, 0.0), (16, 40, 0.0), (600, 4, 0.0412), (100, 4, 0.0413))
    sequences = [
        Sequence(Request(number, number, prompt, output, output, ((number + 1, prompt),), 0, -1 - number))
        for number, (prompt, output, _) in enumerate(lengths)
    ]
    for sequence, (_, _, time_s) in zip(sequences, lengths, strict=True):
        while worker.next_event_s() < time_s:
            worker.advance(worker.next_event_s())
        worker.submit(sequence, time_s)
    while worker.next_event_s() < math.inf:
        worker.advance(worker.next_event_s())
    gaps = [
        seconds / count + growth_s * (step - (count - 1) / 2)
        for _, seconds, _, _, _, count, growth_s, *_ in worker.steps
        for step in range(int(count))
    ]
    return sequences, trace, gaps


def test_the_simulator_takes_the_times_of_the_engine_written_out() -> None:
    law = AffineStep(LAW, SIZES)
    sequences, trace, gaps = simulated(law, fast=False)
    chunks = {sum(new for new, _ in row[0]): row[0] for row in trace}

    def gpu(step: Step) -> float:
        return law.mixed(chunks[step[0]], step[1], step[2]) if step[0] else gpu_s(law, step)

    steps = [(sum(new for new, _ in row[0]), row[1], row[2]) for row in trace]
    _, seen = engine(steps, law, gpu=gpu)
    ends = {row[0]: seen[at] for at, row in enumerate(trace) if row[0]}
    assert sequences[0].prefill_end_s == pytest.approx(ends[((16, 0), (16, 0))], abs=1e-9)
    assert sequences[2].prefill_end_s == pytest.approx(ends[((600, 0), (100, 0))], abs=1e-9)
    assert sequences[0].last_token_s == pytest.approx(seen[-1], abs=1e-9)
    quick, _, same = simulated(law, fast=True)
    assert same == pytest.approx(gaps, abs=1e-9)  # the step that waits for a launch is not spread over its run
    for one, other in zip(sequences, quick, strict=True):
        assert one.prefill_end_s == pytest.approx(other.prefill_end_s, abs=1e-9)
        assert one.last_token_s == pytest.approx(other.last_token_s, abs=1e-9)


def test_launches_within_graphs_count_where_none_beyond_was_seen() -> None:
    """As of an engine whose budget is the largest graph: no step of it is launched kernel by kernel."""
    law = AffineStep(LAW.model_copy(update={"launch_eager_s": 0.0, "launch_per_seq_s": 0.0}), SIZES)
    worker = Worker("w", LIMITS, law)
    sequence = Sequence(Request(0, 0, 100, 1, 1, ((1, 100),), 0, -1))
    worker.submit(sequence, 0.0)
    while worker.next_event_s() < math.inf:
        worker.advance(worker.next_event_s())
    assert law.mixed([(100, 0)], 0, 0) + LAW.launch_decode_s < LAW.launch_graph_s
    assert sequence.prefill_end_s == pytest.approx(LAW.launch_graph_s)


def test_waves_of_attention() -> None:
    """16.5 sequences fill the GPU once: 17 take as long as one and six tenths of a wave, 33 as long as two."""
    assert waves(33, 16.5, 0.6)[0] == pytest.approx(1.0)
    assert waves(17, 16.5, 0.6)[0] == pytest.approx(1.6 * 16.5 / 17)
    assert waves(14, 16.5, 0.6)[0] == pytest.approx(1.0)
    assert waves(9, 16.5, 0.6)[0] == pytest.approx(0.8 * 16.5 / 9)  # alone
    assert waves(6, 16.5, 0.6)[0] == pytest.approx(16.5 / 2 / 6)  # each split in two
    assert waves(200, 0.0, 0.0)[0] == 1.0
    waved = AffineStep(LAW.model_copy(update={"decode_wave_seqs": 16.5, "decode_wave_tail": 0.6}), SIZES)
    assert waved.decode(17)[1] == pytest.approx(LAW.decode_per_context_s * waves(17, 16.5, 0.6)[0])
    assert waved.decode(2000)[1] == pytest.approx(LAW.decode_per_context_s * waves(2000, 16.5, 0.6)[0])


def test_waves_are_found_where_they_are_and_not_where_they_are_not() -> None:
    for tail in (0.6, None):
        update = {} if tail is None else {"decode_wave_seqs": 16.5, "decode_wave_tail": tail}
        law = AffineStep(LAW.model_copy(update=update), SIZES)
        steps = table([*bursts(), *([(0, n, n * 4096)] * 6 for n in range(3, 41))], law)
        launches = fit_launches([steps], SIZES)
        found = fit_step(from_steps(steps, SIZES, launches=launches), floored=False, given={"decode_wave_seqs": 16.5})
        if tail is None:
            assert not found.values["decode_wave_seqs"]
            assert "decode_wave_tail" not in found.names
        else:
            assert found.values["decode_wave_tail"] == pytest.approx(tail, rel=0.02)
            assert found.values["decode_per_context_s"] == pytest.approx(LAW.decode_per_context_s, rel=0.01)


def test_slower_kernels_of_wider_batches_are_found_where_batches_tell() -> None:
    """As fp8 products on Hopper: one more 2 ms for 17 to 64 sequences, none where every batch is that wide."""
    given = {"decode_tile_rows": 16.0}
    law = AffineStep(LAW.model_copy(update=given | {"decode_tile_s": 2e-3}), SIZES)
    assert law.decode(17)[0] - law.decode(16)[0] == pytest.approx(2e-3 + 8 * LAW.decode_per_seq_s)
    assert law.decode(65)[0] < law.decode(64)[0]
    steps = table(bursts(), law)
    rows = from_steps(steps, SIZES, launches=fit_launches([steps], SIZES), given=given)
    assert fit_step(rows, floored=False, given=given).values["decode_tile_s"] == pytest.approx(2e-3, rel=0.03)
    wide = rows[(rows["mixed_steps"] > 0) | (rows["decode_tiled"] > 0)]
    assert "decode_tile_s" not in fit_step(wide, floored=False, given=given).names


def test_waves_are_found_where_no_prompt_joins_decodes() -> None:
    """As on a pair, whose terms of sequences beside prompts are tied to those of decodes."""
    law = AffineStep(LAW.model_copy(update={"decode_wave_seqs": 16.5, "decode_wave_tail": 0.6}), SIZES)
    alone = [[(tokens, 0, 0)] for tokens in (600, 1024, 2048, 4096, 8192)] * 3
    decodes = [[(0, n, n * context)] * 6 for n in range(1, 41) for context in (128, 4096)]
    rows = from_steps(table([*alone, *decodes], law), SIZES, given={"decode_wave_seqs": 16.5})
    assert not rows["mixed_seqs"].any()
    found = fit_step(rows, floored=False, given={"decode_wave_seqs": 16.5})
    assert "mixed_per_context_s" in found.ties
    assert found.values["decode_wave_tail"] == pytest.approx(0.6, rel=0.02)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize(("answer_s", "rounds"), [(1e-4, 1.0), (1e-3, 2.0)])
def test_answers_wait_for_one_round_of_others_at_most(fast: bool, answer_s: float, rounds: float) -> None:
    """Steps of 5 ms for 20 sequences: handing out takes 2 ms of each, or 20; then tokens of several leave together."""
    worker = Worker("w", LIMITS, AffineStep(LAW, SIZES), fast_forward=fast, answer_s=(answer_s, 0.0))
    requests = [Request(one, one, 16, 200, 200, ((one + 1, 16),), 0, -1 - one) for one in range(20)]
    sequences = [Sequence(request) for request in requests]
    for sequence in sequences:
        worker.submit(sequence, 0.0)
    while worker.next_event_s() < math.inf:
        worker.advance(worker.next_event_s())
    assert [one.answer_s for one in sequences] == pytest.approx([rounds * 20 * answer_s] * 20)


def test_a_host_keeps_a_level_and_then_takes_another() -> None:
    pace = HostPace((0.5, 1.0, 1.5), 0.4, "seed")
    seen = [pace.at(0.01 * at) for at in range(100_000)]
    again = HostPace((0.5, 1.0, 1.5), 0.4, "seed")
    assert [again.at(0.5 * at) for at in range(2000)] == seen[::50]  # a function of time, whoever asks how often
    assert np.mean(seen) == pytest.approx(1.0, abs=0.03)
    assert all(seen.count(level) > 0.3 * len(seen) for level in (0.5, 1.0, 1.5))
    changes = sum(one != other for one, other in zip(seen[1:], seen[:-1], strict=True))
    assert 1000 / changes == pytest.approx(0.4 * 3 / 2, rel=0.1)  # a third of the stays is followed by its own level


def test_levels_and_how_long_they_stay_are_found_in_steps() -> None:
    levels, law_s = (0.7, 0.85, 1.0, 1.15, 1.3), 9e-3
    pace = HostPace(levels, 0.4, "steps")
    starts = np.arange(0.0, 120.0, 0.15)
    steps = pd.DataFrame({"worker": "prefill-0", "start_s": starts, "prefill_tokens": 100, "decode_seqs": 0})
    steps["duration_s"] = [law_s * pace.at(start) for start in starts]
    found = fit_levels([steps], LaunchFit({"launch_graph_s": law_s}, {}, LARGEST))
    assert found is not None
    assert found.levels == pytest.approx(levels, rel=0.01)
    assert found.stays_s == pytest.approx(0.4, rel=0.35)
    few = fit_levels([steps.iloc[:40]], LaunchFit({"launch_graph_s": law_s}, {}, LARGEST))
    assert few is not None
    assert few.stays_s == USUAL_STAY_S
    assert fit_levels([steps.iloc[:10]], LaunchFit({"launch_graph_s": law_s}, {}, LARGEST)) is None


def test_an_uneven_host_spreads_times_to_first_token() -> None:
    def first_tokens(pace: HostPace | None) -> list[float]:
        worker = Worker("w", LIMITS, AffineStep(LAW, SIZES), pace=pace)
        found = []
        for at in range(60):
            request = Request(at, at, 600, 1, 1, ((at, 600),), 0, -1)
            worker.submit(Sequence(request), float(at))
            while (now := worker.next_event_s()) < math.inf:
                outcomes = worker.advance(now)
                found += [time_s - at for time_s, kind, _ in outcomes if kind == FINISHED]
        return found

    even, uneven = first_tokens(None), first_tokens(HostPace((0.5, 1.5), 0.3, "w"))
    assert len(even) == len(uneven) == 60
    assert np.ptp(even) == pytest.approx(0.0, abs=1e-9)
    assert max(uneven) - max(even) == pytest.approx(0.5 * LAW.launch_eager_s, rel=0.01)
    assert min(uneven) < min(even)
