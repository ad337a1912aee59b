"""A profile from NVIDIA AIConfigurator's data: operator times measured per GPU and framework, summed to engine steps.

An optional plug-in (`pip install aiconfigurator==0.12.0`). No engine ran for these times: what a server adds
(scheduling, HTTP, tokenisation) is not in them, and the profile says so.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from planner.engine.model_config import model_config
from planner.run.tables import Run, frame
from planner.spec import SpecError
from planner.system.resolve import Pool, System

PREFIX = "aiconfigurator"
VERSION = "0.12.0"  # its Python interface changes between releases
PROMPTS = (16, 64, 128, 256, 512, 1024, 2048, 3072, 4096, 8192, 16384)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # sizes that CUDA graphs are recorded for
CONTEXTS = (128, 1024, 4096, 16384)
MIXED = tuple((tokens, batch) for tokens in (128, 512, 2048, 4096) for batch in (4, 16, 64, 128))
# The catalogue's GPU -> their name of it; others are looked for by the same name.
SYSTEMS = {"h200": "h200_sxm", "h100": "h100_sxm", "b200": "b200_sxm", "a100-80g": "a100_sxm"}


@dataclass(frozen=True, slots=True)
class _Library:
    """The parts of AIConfigurator in use. Imported when asked for: it takes seconds."""

    database: Any
    config: Any
    models: Any
    backends: Any
    steps: Any


def _library() -> _Library:
    try:
        found = metadata.version(PREFIX)
    except metadata.PackageNotFoundError:
        raise SpecError("--from {prefix}: not installed; `pip install {prefix}=={version}`", PREFIX, VERSION) from None
    if found != VERSION:
        raise SpecError("--from {prefix}: version {found} is installed; allowed: {version}", PREFIX, found, VERSION)
    logging.getLogger("aiconfigurator_core").setLevel(logging.ERROR)
    names = ("perf_database", "config", "models", "backends.factory", "step_estimate")
    return _Library(*(importlib.import_module(f"aiconfigurator_core.sdk.{name}") for name in names))


def read_aiconfigurator(source: str, system: System, pool: Pool) -> Run:
    """Steps of the pool's engine as a run. `source`: aiconfigurator[:BACKEND[/VERSION]], default vllm at the latest.

    Raises SpecError with one line when the package, the GPU, the framework or the model is not covered.
    """
    engine = pool.engine
    if pool.model.types(engine) != ("auto", None) or engine.dtype not in ("auto", "bfloat16"):
        raise SpecError(
            "--from {prefix}: only bf16 engines are read; allowed: no quantization, kv_cache_dtype auto", PREFIX
        )
    library = _library()
    name = SYSTEMS.get(pool.hardware.name, pool.hardware.name)
    known: dict[str, dict[str, list[str]]] = library.database.get_supported_databases()
    if name not in known:
        raise SpecError(
            "--from {prefix}: no data of {hardware}; allowed: {known}",
            PREFIX,
            pool.hardware.name,
            ", ".join(sorted(known)),
        )
    backend, _, version = (source.partition(":")[2] or "vllm").partition("/")
    if backend not in known[name]:
        raise SpecError(
            "--from {source}: no data of {backend}; allowed on {hardware}: {known}",
            source,
            backend,
            name,
            ", ".join(sorted(known[name])),
        )
    if version and version not in known[name][backend]:
        raise SpecError(
            "--from {source}: no data of that version; allowed: {versions}", source, ", ".join(known[name][backend])
        )
    version = version or library.database.get_latest_database_version(name, backend)
    rows = _rows(library, system, pool, name, backend, version)
    what = f"{PREFIX} {VERSION}: {name}, {backend} {version}"
    digest = hashlib.sha256(f"{what}\n{rows.to_csv(index=False)}".encode()).hexdigest()
    columns: dict[str, Any] = {str(column): rows[column] for column in rows if column != "prefill_pairs"}
    count = len(rows)
    columns |= {"worker": [PREFIX] * count, "start_s": [1e4 * row for row in range(count)], "count": [1] * count}
    columns |= dict.fromkeys(("running", "waiting"), [0] * count)
    steps = frame("steps", columns).assign(prefill_pairs=rows["prefill_pairs"])
    manifest = {
        "provenance": "measured",
        "spec": {"name": what},
        "sources": [digest],
        "versions": {"gpu": name, backend: version},
        "composed": f"{what}: operator times summed to steps, no engine was run",
    }
    return Run(frame("requests"), steps, frame("samples"), frame("transfers"), manifest=manifest)


def _rows(library: _Library, system: System, pool: Pool, name: str, backend: str, version: str) -> pd.DataFrame:
    """One row a step: prompts alone, decodes alone, both. Times in seconds."""
    spec = system.spec
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(model_config(spec.model).config))
        try:
            database = library.database.get_database(name, backend, version)
            model = library.models.get_model(folder, library.config.ModelConfig(tp_size=pool.tp), backend)
            found = list(_steps(library, pool, model, database, library.backends.get_backend(backend)))
        except Exception as error:  # whatever its tables lack
            fault = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise SpecError(
                "--from {prefix}: no step times of {model}, tp {tp}, on {hardware} ({fault})",
                PREFIX,
                spec.model,
                pool.tp,
                name,
                fault,
            ) from error
    columns = ("prefill_tokens", "prefill_pairs", "decode_seqs", "context_tokens", "duration_s")
    table = pd.DataFrame(found, columns=list(columns))
    if not (table["duration_s"] > 0).all():
        raise SpecError(
            "--from {prefix}: steps of {model} on {hardware} come without a time; nothing can be fitted",
            PREFIX,
            spec.model,
            name,
        )
    return table


def _steps(library: _Library, pool: Pool, model: Any, database: Any, backend: Any) -> Iterator[tuple[float, ...]]:
    limits = pool.limits

    def load(batch: int, tokens: int) -> Any:
        return library.config.RuntimeConfig(batch_size=batch, isl=tokens, osl=2)

    for prompt in PROMPTS:
        if prompt <= min(limits.max_model_len, limits.max_num_batched_tokens):
            ms = backend.run_static_latency_only(model, database, load(1, prompt), "static_ctx")
            yield prompt, prompt**2 / 2, 0, 0, ms / 1e3
    for context in CONTEXTS:
        for batch in BATCHES:
            if batch * context <= limits.kv_blocks * limits.block_size and context < limits.max_model_len:
                ms = backend.run_static_latency_only(model, database, load(batch, context), "static_gen")
                yield 0, 0, batch, batch * context, ms / 1e3
    for tokens, batch in MIXED:
        # Their mixed step attends as prompts of `isl` tokens: here one prompt of all the step's tokens.
        step = library.steps.MixedStepInput(tokens, batch)
        ms = backend.run_mixed(model, database, load(1, tokens), step).latency_ms
        yield tokens, tokens**2 / 2, batch, batch * tokens, ms / 1e3
