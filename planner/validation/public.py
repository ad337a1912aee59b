"""Public end-to-end measurements predicted again: rows of a closed loop, each simulated with the shipped roofline.

Rows are those of aiconfigurator's `silicon_sample.csv` (Apache-2.0), whose columns are named below: mean TTFT and TPOT
of InferenceX's public results at a fixed number of requests in flight. What a row does not say is what InferenceX's
scripts do: ten requests for each in flight, all of them there at the start, lengths from 80 to 100 % of the stated
ones, no prefix caching.
"""

from __future__ import annotations

import math
import multiprocessing
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from planner.engine.catalogue import gpu_named, names
from planner.engine.hub_ids import published_as
from planner.engine.limits import uneven
from planner.engine.model_config import load_model, model_config
from planner.engine.model_shape import ModelShape
from planner.engine.parallel import Parallel
from planner.messages import message, said
from planner.spec import Aggregated, Concurrency, Disaggregated, Engine, PoolSpec, Spec, SpecError, Uniform, config_root
from planner.validation.recipes import ANY, BLACKWELL, BUDGET, recipe

ROWS = "public/silicon_fit.csv"  # under configs; 673 rows
COLUMNS = ("backend", "model_path", "system", "precision", "mode", "isl", "osl", "silicon_ttft_ms", "silicon_tpot_ms")
REQUESTS = 10  # for each in flight
MOST, FEWEST = 5120, 2  # requests of a row, unless that is below so many for each in flight
SHORTEST = 0.8  # of the stated length
# First days of releases, from the package index; those of 2026 as rows of this file first name them.
RELEASES = (
    ("2025-10-02", "0.11.0"), ("2025-12-03", "0.12.0"), ("2025-12-18", "0.13.0"), ("2026-01-20", "0.14.0"),
    ("2026-02-25", "0.15.1"), ("2026-03-01", "0.16.0"), ("2026-03-11", "0.17.0"), ("2026-03-27", "0.18.0"),
    ("2026-04-03", "0.19.0"),
)  # fmt: skip
IN_FLIGHT = 1536  # more take minutes a row

# How `gemm_quant_mode` and `moe_quant_mode` store a checkpoint that is not published so by the model's own makers.
_NVFP4 = {"quant_method": "modelopt", "quant_algo": "NVFP4"}
STORED: dict[str, dict[str, Any]] = {
    "fp8": {"quant_method": "fp8"},
    "fp8_block": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    "nvfp4": _NVFP4,
    "int4_wo": {"quant_method": "gptq", "bits": 4, "group_size": 128},
}
NVFP4_MIXTURE = {**_NVFP4, "ignore": ["re:.*self_attn.*", "re:.*gate$"]}  # attention stays as it was
NATIVE = {"fp8": ("fp8", "fp8_block"), "mxfp4": ("nvfp4", "mxfp4", "w4a16_mxfp4"), "compressed-tensors": ("int4_wo",)}


@dataclass(frozen=True)
class PublicRow:
    """One measured row. Milliseconds are means over its requests. `engine` is the one that was measured."""

    name: str
    engine: str
    release: str
    mode: str
    model: str
    gpu: str
    precision: str
    stored: str  # how the weights are, in the words of `STORED`
    prompt: int
    output: int
    concurrency: int
    workers: tuple[tuple[int, int, int, int], ...]  # of each pool: (replicas, GPUs, attention ranks, expert ranks)
    ttft_ms: float
    tpot_ms: float


@dataclass(frozen=True, slots=True)
class Predicted:
    """A row beside its prediction; `reason` says why there is none."""

    row: PublicRow
    ttft_ms: float = math.nan
    tpot_ms: float = math.nan
    reason: str | None = None

    @property
    def kind(self) -> str:
        """What is judged together: vLLM's own rows apart from those of other engines."""
        return self.row.engine if self.row.mode == "agg" else f"{self.row.engine} P/D"


def shipped_rows() -> Path:
    """The file that ships."""
    return config_root() / ROWS


def release_before(day: str) -> str:
    """vLLM's newest release before a day, 2026-04-03: what a build without a version number is taken for."""
    return next((release for first, release in reversed(RELEASES) if first < day), "")


def read_rows(path: Path) -> list[PublicRow]:
    """Rows of a CSV with aiconfigurator's columns. Raises SpecError when columns are missing or it holds no rows."""
    try:
        table = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError):
        raise SpecError("{path}: is no CSV; allowed: a table with columns {names}", path, ", ".join(COLUMNS)) from None
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing or table.empty:
        raise SpecError(
            "{path}: lacks {missing}; allowed: a table with columns {names}",
            path,
            ", ".join(missing) or message("rows"),
            ", ".join(COLUMNS),
        )
    return [_row(number, values) for number, values in enumerate(table.to_dict("records"))]


def _row(number: int, values: dict[Any, Any]) -> PublicRow:
    def text(name: str) -> str:
        found = values.get(name)
        return "" if found is None or (isinstance(found, float) and math.isnan(found)) else str(found).strip()

    def count(name: str, default: int = 1) -> int:
        try:
            found = float(values.get(name, default))
        except (TypeError, ValueError):
            return default
        return max(default, round(found)) if math.isfinite(found) else default

    def measured(name: str) -> float:
        try:
            return float(values.get(name, math.nan))
        except (TypeError, ValueError):
            return math.nan

    mode = text("mode").lower()
    pools = ("",) if mode == "agg" else ("prefill_", "decode_")
    workers = []
    for pool in pools:
        ranks, tp = count(f"{pool}attention_dp_size"), count(f"{pool}tp_size") * count(f"{pool}pp_size")
        gpus = max(tp, ranks) if mode == "agg" else tp * ranks  # aggregated rows count the ranks within tp
        workers.append((count(f"{pool}num_workers"), gpus, ranks, count(f"{pool}moe_ep_size")))
    told = re.search(r"concurrency=(\d+)", text("silicon_data_source"))
    ranks = count(f"{pools[-1]}attention_dp_size")
    batch = count(f"{pools[-1]}batch_size") * ranks * workers[-1][0]
    release = re.match(r"\d+\.\d+(\.\d+)?", text("backend_version"))
    day = re.search(r"measured=(\d{4}-\d\d-\d\d)", text("silicon_data_source"))
    return PublicRow(
        name=text("id") or f"row {number + 1}",
        engine=text("backend").lower(),
        release=release[0] if release else release_before(day[1]) if day else "",
        mode=mode,
        model=text("model_path"),
        gpu=text("system").lower(),
        precision=text("precision").lower(),
        stored=(text("moe_quant_mode") or text("gemm_quant_mode") or text("precision")).lower(),
        prompt=count("isl"),
        output=count("osl"),
        concurrency=int(told[1]) if told else batch,
        workers=tuple(workers),
        ttft_ms=measured("silicon_ttft_ms"),
        tpot_ms=measured("silicon_tpot_ms"),
    )


def catalogued(model: str) -> str:
    """The catalogue's name of a hub id, of its instruct or quantised copies too. Raises SpecError."""
    wanted = _plain(model)
    for name in names("models"):
        if wanted in (_plain(published_as(name) or name), _plain(name)):
            return name
    raise SpecError("model {model} is not in the catalogue", model)


def _plain(model: str) -> str:
    name = model.lower().rpartition("/")[2].removeprefix("meta-")
    return re.sub(r"-(instruct|fp8|nvfp4|fp4|bf16|awq|int4|hf|0324|0528|2507|static|pertensor)(?=-|$)", "", name)


def stored_model(row: PublicRow, folder: Path) -> str:
    """The row's checkpoint as a name or file that a spec takes. Raises SpecError for one that is not known."""
    name = catalogued(row.model)
    config = dict(model_config(name).config)
    own = (config.get("quantization_config") or {}).get("quant_method")
    if row.stored in NATIVE.get(str(own), ()) or (own is None and row.stored in ("bf16", "bfloat16", "float16", "")):
        return name
    mixture = any(key in config for key in ("num_local_experts", "num_experts", "n_routed_experts"))
    found = NVFP4_MIXTURE if row.stored == "nvfp4" and mixture else STORED.get(row.stored)
    if found is None:
        raise SpecError("weights stored as {kind} are not covered", row.stored)
    config["quantization_config"] = found
    file = folder / f"{name}-{row.stored}.yaml"
    file.write_text(yaml.safe_dump({"name": file.stem, "config": config}))
    return str(file)


def spec_of(row: PublicRow, folder: Path) -> Spec:
    """The row as a deployment and its load. Raises SpecError where it is not covered."""
    gpu = gpu_named(row.gpu.replace("_", "-"))
    if gpu is None:
        raise SpecError("GPU {gpu} is not in the catalogue", row.gpu)
    if row.mode not in ("agg", "disagg"):
        raise SpecError("mode {mode} is not covered", row.mode)
    if row.concurrency > IN_FLIGHT:
        raise SpecError("more than {most} requests in flight take too long to simulate", IN_FLIGHT)
    model = stored_model(row, folder)
    ours = row.engine == "vllm"
    script = recipe(row.model, gpu, row.precision, row.release) if ours else ANY
    engine = Engine(
        max_num_batched_tokens=max(BUDGET if script.prompts is None else script.prompts * row.prompt, row.concurrency),
        max_num_seqs=(script.seqs or row.concurrency) if ours else None,
        block_size=script.block_size,
        gpu_memory_utilization=script.utilisation,
        enable_prefix_caching=False,
        kv_cache_dtype=script.kv if ours else "fp8" if gpu in BLACKWELL else "auto",
        max_cudagraph_capture_size=script.graph,
        vllm_release=row.release if ours and row.release else None,
    )
    shape = load_model(model)
    workers = row.workers
    if row.mode == "agg":  # whatever the row says of ranks, the scripts give vLLM tp alone
        workers = tuple((replicas, gpus, 1, experts) for replicas, gpus, _, experts in workers)
    pools = [
        PoolSpec(
            replicas=replicas,
            tp=gpus // ranks,
            dp=ranks,
            engine=Engine(
                enable_expert_parallel=_whole_experts(shape, gpus, ranks, gpus if script.whole_experts else experts)
            ),
        )
        for replicas, gpus, ranks, experts in workers
    ]
    node = max(8, *(pool.tp * pool.dp for pool in pools))
    deployment: Aggregated | Disaggregated
    if row.mode == "agg":
        only = pools[0]
        deployment = Aggregated(mode="aggregated", replicas=only.replicas, tp=only.tp, dp=only.dp, gpus_per_node=node)
        engine = engine.model_copy(
            update={"enable_expert_parallel": bool(only.engine and only.engine.enable_expert_parallel)}
        )
    else:
        deployment = Disaggregated(mode="disaggregated", prefill=pools[0], decode=pools[1], gpus_per_node=node)

    def around(tokens: int) -> Uniform:
        return Uniform(low=max(1, round(SHORTEST * tokens)), high=tokens)

    return Spec(
        name="public",
        model=model,
        hardware=gpu,
        deployment=deployment,
        engine=engine,
        workload=Concurrency(
            kind="concurrency",
            concurrency=row.concurrency,
            requests=max(min(REQUESTS * row.concurrency, MOST), FEWEST * row.concurrency),
            prompt_tokens=around(row.prompt),
            output_tokens=around(row.output),
        ),
    )


def _whole_experts(shape: ModelShape, gpus: int, ranks: int, experts: int) -> bool:
    """Whether experts are kept whole: as the row says (on so many GPUs), or because their scales cannot be split."""
    if not shape.experts or gpus == 1:
        return False
    shared, whole = (Parallel(gpus // ranks, ep=ep, dp=ranks) for ep in (1, gpus))
    return experts > 1 or (uneven(shape, shared) is not None and uneven(shape, whole) is None)


def predict(row: PublicRow) -> Predicted:
    """The row simulated. A row that is not covered says why; none stops the others."""
    from planner.backends import backend
    from planner.run.facts import Facts
    from planner.system.resolve import resolve
    from planner.traffic import workload

    if not (row.ttft_ms > 0 and row.tpot_ms > 0):
        return Predicted(row, reason=message("no TTFT or TPOT was measured"))
    if row.mode == "agg" and row.ttft_ms > row.tpot_ms * row.output:
        return Predicted(
            row, reason=message("most requests wait for a place, and the row does not say how many there are")
        )
    with tempfile.TemporaryDirectory() as folder:
        try:
            spec = spec_of(row, Path(folder))
            run = backend("simulate").run(resolve(spec), workload.build(spec))
        except SpecError as error:
            return Predicted(row, reason=said(error))
        facts = Facts(run)
    ttft, tpot = (1e3 * float(np.nanmean(of)) if np.isfinite(of).any() else math.nan for of in (facts.ttft, facts.tpot))
    if not (math.isfinite(ttft) and math.isfinite(tpot)):
        return Predicted(row, reason=message("no request can run there"))
    return Predicted(row, ttft, tpot)


@dataclass(frozen=True, slots=True)
class Errors:
    """How far predictions were off over some rows, as shares of the measured value: 0.1 is 10 % too slow."""

    rows: int
    bias: float
    median: float
    mean_abs: float
    p90: float  # of the absolute errors

    @classmethod
    def of(cls, values: Sequence[float]) -> Errors:
        """`values` is not empty."""
        found = np.asarray(values, dtype=float)
        sizes = np.abs(found)
        return cls(
            len(found),
            float(found.mean()),
            float(np.median(found)),
            float(sizes.mean()),
            float(np.percentile(sizes, 90)),
        )


METRICS: dict[str, Callable[[Predicted], float]] = {
    "TTFT": lambda one: one.ttft_ms / one.row.ttft_ms - 1,
    "TPOT": lambda one: one.tpot_ms / one.row.tpot_ms - 1,
}


def covered(found: Sequence[Predicted]) -> list[Predicted]:
    return [one for one in found if one.reason is None]


def errors(found: Sequence[Predicted]) -> dict[str, Errors]:
    """By metric, over those that are covered; empty when none is."""
    those = covered(found)
    return {name: Errors.of([of(one) for one in those]) for name, of in METRICS.items()} if those else {}


def groups(found: Sequence[Predicted]) -> dict[tuple[str, ...], list[Predicted]]:
    """Covered rows by what serves them, model, GPU, precision and GPUs of a worker, in order."""
    kept: dict[tuple[str, ...], list[Predicted]] = {}
    for one in covered(found):
        row = one.row
        size = "+".join(str(gpus) for _, gpus, _, _ in row.workers)
        kept.setdefault((one.kind, row.model.rpartition("/")[2], row.gpu, row.precision, size), []).append(one)
    return dict(sorted(kept.items()))


def reasons(found: Sequence[Predicted]) -> dict[str, int]:
    """Why rows are not covered, and how many for each reason."""
    kept: dict[str, int] = {}
    for one in found:
        if one.reason is not None:
            kept[one.reason] = kept.get(one.reason, 0) + 1
    return dict(sorted(kept.items(), key=lambda item: -item[1]))


def _percents(of: Errors) -> list[str]:
    return [f"{100 * value:+.1f}" for value in (of.bias, of.median)] + [
        f"{100 * value:.1f}" for value in (of.mean_abs, of.p90)
    ]


HEAD = (
    "| served by | model | GPU | precision | GPUs a worker | rows | TTFT: bias | median | mean abs. | 90 % "
    "| TPOT: bias | median | mean abs. | 90 % |"
)


def document(found: Sequence[Predicted]) -> str:
    """The tables of docs/public.md, in percent of the measured values."""
    lines = [HEAD, "|" + "---|" * 14]
    kinds = dict.fromkeys(key[0] for key in groups(found))
    for kind in kinds:
        those = errors([one for one in found if one.kind == kind])
        lines.append(_line([f"**{kind}**", "all", "", "", ""], those))
    lines += [_line(list(key), errors(those)) for key, those in groups(found).items()]
    if missing := reasons(found):
        lines += ["", "Not covered:", ""]
        lines += [f"- {count} rows: {' '.join(reason.split())}" for reason, count in missing.items()]
    return "\n".join(lines) + "\n"


def _line(cells: list[str], of: dict[str, Errors]) -> str:
    cells = [*cells, str(of["TPOT"].rows), *_percents(of["TTFT"]), *_percents(of["TPOT"])]
    return "| " + " | ".join(cells) + " |"


def predict_all(rows: Sequence[PublicRow], processes: int, done: Callable[[], None]) -> list[Predicted]:
    """Every row simulated, in order, on so many processes."""
    if processes == 1 or len(rows) < 2:
        found = []
        for row in rows:
            found.append(predict(row))
            done()
        return found
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as executor:
        found = []
        for one in executor.map(predict, rows, chunksize=4):
            found.append(one)
            done()
    return found


def comparables(found: Sequence[Predicted]) -> str:
    """The YAML of `planner.engine.provenance`: errors of vLLM's aggregated rows by kind of model and GPU."""
    kept: dict[tuple[str, str], list[Predicted]] = {}
    for one in covered(found):
        if one.kind == "vllm" and one.row.workers[0][2] == 1:
            kind = load_model(catalogued(one.row.model)).kind
            kept.setdefault((kind, gpu_named(one.row.gpu) or ""), []).append(one)
    entries = [
        entry(kind, [one.row for one in those], errors(those), fitted=True) for (kind, _), those in sorted(kept.items())
    ]
    return written(entries, "planner validate --public --docs docs/public.md")


def entry(kind: str, rows: Sequence[PublicRow], off: Mapping[str, Errors], fitted: bool) -> dict[str, Any]:
    """One of `planner.engine.provenance.PublicErrors`; `off` by metric, over these rows."""
    return {
        "kind": kind,
        "gpus": sorted({gpu_named(row.gpu) or "" for row in rows}),
        "models": sorted({catalogued(row.model) for row in rows}),
        "rows": len(rows),
        "fitted": fitted,
        **{name.lower(): {"mean": round(one.mean_abs, 4), "p90": round(one.p90, 4)} for name, one in off.items()},
    }


def written(entries: Sequence[Mapping[str, Any]], command: str) -> str:
    """The YAML that `command` writes."""
    listed = yaml.safe_dump({"errors": list(entries)}, sort_keys=False, default_flow_style=None, width=120)
    return f"# Written by `{command}`\n{listed}"
