"""One engine as a value: what a spec's keys make of it, and what has no model yet."""

from __future__ import annotations

import pytest

from planner.engine.catalogue import hardware
from planner.engine.model_config import load_model
from planner.engine.parallel import Parallel
from planner.engine.setup import Setup
from planner.spec import Engine


def test_an_engine_is_its_shape_under_its_options_on_its_gpus() -> None:
    model = load_model("qwen3-30b-a3b")
    options = Engine(kv_cache_dtype="fp8", enable_expert_parallel=True)
    one = Setup.of(model, hardware("h200"), options)
    assert (one.parallel, one.kv_bytes_per_token) == (Parallel(), model.kv_bytes_per_token / 2)
    four = one.at(4)
    assert four == Setup.of(model, hardware("h200"), options, 4)
    assert (four.parallel, four.kv_bytes_per_token) == (Parallel(tp=4, ep=4), one.kv_bytes_per_token / 4)
    assert Setup.of(model, hardware("h200"), Engine(), 4).parallel.ep == 1


@pytest.mark.parametrize("sizes", [{"pp": 2}, {"dp": 2, "ep": 1, "pp": 2}, {"tp": 4, "dp": 2, "ep": 4}])
def test_what_is_not_modelled_is_no_engine(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="not modelled; allowed: pp 1"):
        Parallel(**sizes)
