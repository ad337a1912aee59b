"""Memory against what vLLM logged when it started."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from planner import cli
from planner.engine.catalogue import hardware
from planner.engine.ledger import ledger
from planner.engine.limits import batch_sizes, uneven
from planner.engine.memory import GIB, Memory, memory
from planner.engine.model_config import load_model, model_config, shape
from planner.engine.model_shape import ModelShape
from planner.engine.parallel import Parallel
from planner.engine.setup import Setup
from planner.spec import Engine, SpecError

QWEN3_14B = {
    **model_config("qwen3-32b").config,
    "hidden_size": 5120,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
    "intermediate_size": 17408,
}


def _start(model: ModelShape, gpu: str, tp: int, engine: Engine) -> tuple[Memory, float]:
    """(the ledger, KV tokens)."""
    setup = Setup.of(model, hardware(gpu), engine, tp)
    budget, seqs, _ = batch_sizes(setup)
    found = memory(setup, budget, seqs)
    return found, found.kv / setup.kv_bytes_per_token


def _model(name: str) -> ModelShape:
    return shape(name, QWEN3_14B, name) if name == "qwen3-14b" else load_model(name)


# llm-d-incubation/llm-d-planner accuracy_report.md (875a4fd, Apache-2.0): H100 at 0.95; GiB of weights, activation,
# non-torch and KV, and the KV tokens. None: not listed.
LISTED = [
    ("llama-3.1-8b", 1, "0.19.0", None, 14.99, 1.89, 0.25, 58.11, 476_016),
    ("llama-3.1-8b", 2, "0.19.0", None, 7.51, 1.89, 2.07, None, None),
    ("llama-3.1-8b", 4, "0.19.0", None, 3.77, 1.89, 2.13, None, None),
    ("qwen2.5-7b", 1, "0.19.0", None, 14.25, 2.21, 0.24, 58.53, 1_096_000),
    ("qwen2.5-7b", 2, "0.19.0", None, 7.12, 2.21, 2.06, None, None),
    ("qwen2.5-7b", 4, "0.19.0", None, 3.55, 2.21, 2.13, None, None),
    ("llama-3.1-8b", 1, "0.19.0", "fp8", 8.49, None, None, 64.61, None),
    ("qwen3-14b", 1, "0.16.0", None, 27.52, 5.64, 0.13, 41.94, None),
    ("qwen3-14b", 1, "0.18.0", None, 27.52, 2.23, 0.25, 45.3, None),
]


@pytest.mark.parametrize("row", LISTED, ids=lambda row: f"{row[0]} {row[3] or ''} tp {row[1]} on {row[2]}")
def test_the_listed_starts(row: tuple[str, int, str, str | None, float, float, float, float, int]) -> None:
    name, tp, release, quantization, *listed, listed_tokens = row
    engine = Engine.model_validate(
        {"gpu_memory_utilization": 0.95, "vllm_release": release, "quantization": quantization}
    )
    found, tokens = _start(_model(name), "h100", tp, engine)
    parts = (found.weights, found.activation, found.non_torch, found.kv)
    for mine, theirs in zip(parts, listed, strict=True):
        if theirs is not None:
            assert mine / GIB == pytest.approx(theirs, rel=0.015, abs=0.06)
    if listed_tokens is not None:
        assert tokens == pytest.approx(listed_tokens, rel=0.01)


# vLLM 0.25.1 on H200s at 0.92: the KV tokens it logged, as in the shipped profiles and measurements.
MEASURED = [
    ("llama-3.1-8b", 1, {}, 919_824),
    ("llama-3.1-8b", 1, {"kv_cache_dtype": "fp8"}, 1_839_120),
    ("llama-3.1-8b", 1, {"max_num_batched_tokens": 16384, "max_num_seqs": 256}, 914_304),
    ("llama-3.1-8b", 2, {}, 1_961_168),
    ("qwen3-1.7b", 1, {}, 1_163_136),
    ("qwen3-30b-a3b", 1, {}, 744_656),
]


@pytest.mark.parametrize(("name", "tp", "keys", "tokens"), MEASURED)
def test_measured_starts(name: str, tp: int, keys: dict[str, object], tokens: int) -> None:
    assert _start(_model(name), "h200", tp, Engine.model_validate(keys))[1] == pytest.approx(tokens, rel=0.003)


def test_graphs_are_not_made_in_eager_mode() -> None:
    model = load_model("llama-3.1-8b")
    graphs, eager = (_start(model, "h200", 1, Engine(enforce_eager=eager))[0] for eager in (False, True))
    assert (graphs.graphs > 0, eager.graphs, eager.kv - graphs.kv) == (True, 0, graphs.graphs)


def test_tokens_are_counted_in_longest_requests() -> None:
    """As vLLM logs them: gpt-oss keeps 128 tokens and a step's in every second layer, Qwen3.5 a state in most."""
    oss, llama = (load_model(name).for_engine(Engine()) for name in ("gpt-oss-20b", "llama-3.1-8b"))
    assert llama.request_bytes_per_gpu(1000, 8192, Parallel(2)) == 1000 * 131_072 / 2
    assert oss.request_bytes_per_gpu(100_000, 8192, Parallel(1)) == 12 * 2048 * (100_000 + 127 + 8192)
    row = ledger("llama-3.1-8b", "h200", Engine(), [1])["gpus"][0]
    assert row["kv_tokens"] == pytest.approx(row["kv_gib"] * GIB / 131_072, abs=1)
    short, long = (
        ledger("gpt-oss-20b", "h200", Engine(max_model_len=size), [1])["gpus"][0] for size in (8192, 131_072)
    )
    assert long["kv_tokens"] > 1.8 * short["kv_tokens"]


CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"


@pytest.mark.skipif(not CASES.is_dir(), reason=f"{CASES} is not there: inputs that people bring")
def test_checkpoints_that_people_bring() -> None:
    online = load_model("llama-3.1-70b").for_engine(Engine(quantization="fp8"))
    for name, kv in (("m-70b-fp8", 2), ("m-70b-modelopt", 1)):
        model = load_model(str(CASES / name)).for_engine(Engine())
        assert model.weight_bytes == online.weight_bytes
        assert model.kv_bytes_per_token == 327_680 * kv // 2
    awq = load_model(str(CASES / "m-72b-awq"))
    assert awq.weight_bytes / 1e9 == pytest.approx(41.6, rel=0.01)  # as published
    assert (
        uneven(awq, Parallel(1)),
        "no multiple of its quantised groups of 128" in str(uneven(awq, Parallel(8))),
    ) == (None, True)
    with pytest.raises(SpecError, match=r"quantization_config: 'fp8' is not a section; allowed: a section with"):
        load_model(str(CASES / "m-string-quant"))


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["memory", "deepseek-v3", "--set", "engine.quantization=fp8", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["kv_bytes_per_token"] == 70_272
    assert [row["tp"] for row in told["gpus"]] == [1, 2, 4, 8]
    assert [bool(row["refused"]) for row in told["gpus"]] == [True, True, True, False]
    assert cli.run(["memory", "llama-3.1-8b", "--hardware", "h100", "--tp", "1"]) == 0
    text = capsys.readouterr().out
    assert "KV 131,072 bytes a token" in " ".join(text.split())
    assert "fits with tp 1, which leaves room for 462,909 tokens" in text.splitlines()[0]
    assert "active" not in text, "all of a dense model is"
    assert cli.run(["memory", "llama-3.1-405b", "--hardware", "h100"]) == 0
    assert "does not fit with tp 1, 2, 4, 8" in capsys.readouterr().out.splitlines()[0]
    assert cli.run(["memory", "no-such-model"]) == 2
    assert "allowed" in capsys.readouterr().err
