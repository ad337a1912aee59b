"""The table of terms: one step and rows of many agree, no term is forgotten by either, and bounds lie below guesses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.calibration.fitting import predict
from planner.calibration.observations import from_steps
from planner.engine.catalogue import hardware
from planner.engine.law import (
    FEATURES,
    FLOOR,
    TERMS,
    StepLaw,
    Steps,
    at_least,
    bounds,
    guess,
    launch_seconds,
    of_part,
    retyped,
    scaled,
    total,
)
from planner.engine.model_config import load_model
from planner.engine.profiles import capture_sizes
from planner.engine.roof import Roof
from planner.engine.setup import Setup
from planner.engine.step_time import AMOUNTS, AffineStep
from planner.spec import Engine

SIZES = capture_sizes()
SHAPES = {"decode_wave_seqs": 16.5, "decode_wave_tail": 0.6, "experts": 128.0, "experts_per_token": 8.0, "ranks": 2.0}
SHAPES["decode_tile_rows"] = 16.0
TIMES = [name for name, term in TERMS.items() if term.part != "shape"]


def law_of(numbers: list[int]) -> StepLaw:
    return StepLaw(**dict(zip(TIMES, (1e-6 * number for number in numbers), strict=True)), **SHAPES)


def seconds(law: AffineStep, tokens: int, seqs: int, context: int) -> float:
    """Of one step, as the simulator asks for it."""
    if tokens:
        return law.mixed([(tokens, 0)], seqs, context)
    base, slope = law.decode(seqs)
    return base + slope * context


def rows(steps: list[tuple[int, int, int]]) -> pd.DataFrame:
    """As a calibration makes them."""
    table = pd.DataFrame(steps, columns=["prefill_tokens", "decode_seqs", "context_tokens"])
    idle = table.assign(duration_s=1.0, worker="w", start_s=np.arange(len(table)) * 10.0)
    return from_steps(idle, SIZES, given=SHAPES)


STEPS = st.tuples(st.integers(0, 5000), st.integers(0, 1500), st.integers(0, 1_000_000)).filter(
    lambda one: any(one[:2])
)


@given(
    st.lists(st.integers(0, 1000), min_size=len(TIMES), max_size=len(TIMES)), st.lists(STEPS, min_size=1, max_size=5)
)
def test_one_step_and_rows_of_many_are_one_law(numbers: list[int], steps: list[tuple[int, int, int]]) -> None:
    law = AffineStep(law_of(numbers), SIZES)
    assert predict(law.law.model_dump(), rows(steps)) == pytest.approx([seconds(law, *one) for one in steps], rel=1e-12)
    tokens, seqs = np.array(steps).T[:2]
    launches = launch_seconds(tokens, seqs, SIZES[-1], law.law.model_dump())
    assert launches == pytest.approx([law.launch(*one[:2]) for one in steps], rel=1e-12)


@pytest.mark.parametrize("name", [name for name in TIMES if name != "mixed_uneven_s"])  # nothing where ranks are even
def test_every_term_is_in_some_step_once(name: str) -> None:
    """What a term adds is its value times its feature, in one step and in a row of it alike."""
    law = AffineStep(law_of([100 * (one == name) for one in TIMES]), SIZES)
    steps = [(0, 40, 9000), (0, 200, 90_000), (300, 20, 5000), (3000, 20, 5000)]
    part = (
        [law.launch(*one[:2]) for one in steps] if TERMS[name].part == "launch" else [seconds(law, *s) for s in steps]
    )
    assert max(part) > 0
    twice = AffineStep(law_of([200 * (one == name) for one in TIMES]), SIZES)
    more = (
        [twice.launch(*one[:2]) for one in steps]
        if TERMS[name].part == "launch"
        else [seconds(twice, *s) for s in steps]
    )
    assert more == pytest.approx([2 * value for value in part])


@pytest.mark.parametrize("model", ["llama-3.1-8b", "gemma-2-9b", "deepseek-r1-distill-llama-8b"])
@pytest.mark.parametrize("tp", [1, 4])
def test_nothing_is_guessed_below_what_the_hardware_allows(model: str, tp: int) -> None:
    roof = Roof(Setup.of(load_model(model), hardware("h200"), Engine(), tp))
    assert at_least(guess(roof), bounds(roof))[1] == ()


def test_a_law_at_another_tp_and_back_is_the_law() -> None:
    one = Roof(Setup.of(load_model("llama-3.1-8b"), hardware("h200"), Engine()))
    four = Roof(one.setup.at(4))
    law = guess(one).model_copy(update=SHAPES | {"ranks": 0.0, "launch_decode_s": 2e-3, FLOOR: 8e-3})
    there = scaled(law, one, four)
    assert there.decode_per_context_s == pytest.approx(law.decode_per_context_s / 4)
    assert there.decode_wave_seqs == 4 * one.wave_seqs
    assert (there.launch_decode_s, there.prefill_floor_s) == (2e-3, 8e-3)
    back = scaled(there.model_copy(update={"decode_wave_seqs": 66.0}), four, one)
    for name, value in law.model_dump().items():
        if not TERMS[name].reduced:  # the bytes of all-reduces come on top, and are no part of a ratio
            assert getattr(back, name) == pytest.approx(value), name


def test_a_law_with_other_types_and_back_is_the_law() -> None:
    plain, eight = (
        Roof(Setup.of(load_model("llama-3.1-8b"), hardware("h200"), Engine(kv_cache_dtype=kv, quantization=weights)))
        for kv, weights in (("auto", None), ("fp8", "fp8"))
    )
    law = guess(plain).model_copy(update={"launch_decode_s": 2e-3, "decode_wave_seqs": 16.5, "decode_wave_tail": 0.6})
    there = retyped(law, plain, eight)
    assert there.decode_tile_s > 0 and there.decode_tile_rows == 16
    assert (there.launch_decode_s, there.decode_per_seq_s) == (2e-3, law.decode_per_seq_s)
    assert there.prefill_per_token_s < 0.7 * law.prefill_per_token_s
    assert retyped(there, eight, plain).model_dump() == pytest.approx(law.model_dump())


@pytest.mark.parametrize(("gpu", "kv", "tiles"), [("h200", 0.68, True), ("h100", 0.5, False)])
def test_eight_bit_kernels_wait_for_themselves_where_memory_is_fast(gpu: str, kv: float, tiles: bool) -> None:
    """Ratios of vLLM's tables of decode attention: 0.68 and 0.53; products of 32 rows against 16: 1.2 and 1.05."""
    plain, eight = (
        guess(Roof(Setup.of(load_model("llama-3.1-8b"), hardware(gpu), options)))
        for options in (Engine(), Engine(kv_cache_dtype="fp8", quantization="fp8"))
    )
    assert eight.decode_per_context_s / plain.decode_per_context_s == pytest.approx(kv, abs=0.01)
    assert (eight.decode_tile_s > 0) == tiles


@pytest.mark.parametrize(("tokens", "seqs"), [(300, 12), (500, 12), (513, 0), (700, 200), (5000, 40)])
def test_a_step_with_prompts_takes_the_sum_of_its_terms(tokens: int, seqs: int) -> None:
    """In a CUDA graph and beyond it, of few tokens and of many; amounts of the step are not computed by features."""
    law = StepLaw(**{name: 1e-6 * (number + 1) for number, name in enumerate(StepLaw.model_fields) if name in TIMES})
    values, eager = law.model_dump(), 1.0 * (tokens + seqs > SIZES[-1])
    pairs = tokens * (100 + tokens / 2)
    step = Steps(1.0, float(tokens), pairs, float(seqs), float(seqs), 5e4, eager)
    line = max(float(total(of_part("line"), step, values)), law.prefill_floor_s)
    expected = line + float(total(of_part("prompt"), step, values))
    assert AffineStep(law, SIZES).mixed([(tokens, 100)], seqs, 5e4) == pytest.approx(expected)
    assert {feature.plain for feature in FEATURES.values() if feature.plain} == set(AMOUNTS)
