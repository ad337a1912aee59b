"""The YAML of a deployment, as frozen types, and its reading and writing.

Units are part of every name: `_s`, `_ms`, `_us`, `_tokens`, `_bytes`, `_gb_s` (1e9 bytes a second).
A wrong file raises `SpecError`, whose text is one line: where, what is wrong, what is allowed.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from planner.messages import message
from planner.spec.deployment import Aggregated, Cluster, Deployment, Disaggregated, Engine, PoolSpec, Router
from planner.spec.faults import unknown, validate
from planner.spec.optimizations import Optimizations
from planner.spec.service import MeasuredService
from planner.spec.strict_yaml import (
    MOST_NAME,
    Fraction,
    Node,
    NonNegative,
    NonNegativeInt,
    Positive,
    SpecError,
    read_mapping,
    read_text,
    read_value,
    shorten,
    written,
)
from planner.spec.workload import (
    Concurrency,
    Constant,
    Gamma,
    MultiRoundQa,
    Poisson,
    Rag,
    Retrieval,
    Sessions,
    Trace,
    Workload,
)


class Slo(Node):
    """Targets: `attainment` of the requests must meet all those that are set."""

    ttft_ms: Positive | None = 500
    tpot_ms: Positive | None = 30
    e2e_ms: Positive | None = None
    attainment: Fraction = 0.99

    @property
    def targets(self) -> dict[str, float]:
        """Milliseconds by metric, of those that are set."""
        named = {"TTFT": self.ttft_ms, "TPOT": self.tpot_ms, "E2E": self.e2e_ms}
        return {name: limit for name, limit in named.items() if limit is not None}


class RunOptions(Node):
    seed: NonNegativeInt = 0
    warmup_requests: NonNegativeInt = 0  # left out of the metrics
    sample_interval_s: Annotated[float, Field(ge=1e-3)] = 1.0
    step_records: bool = True
    margin: NonNegative = 0.05  # suggest: P/D must win by this share to be worth it


ONE_MODEL = message("one model: a name in configs/models, a hub id or a folder; `planner sweep` compares several")
ONE_GPU = message("one GPU: a name in configs/hardware such as h100, or a path; `planner sweep` compares several")


class Spec(Node):
    """One deployment, its traffic and its targets."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=MOST_NAME,
        description=message(
            "text of letters, digits, '.', '_' and '-', no spaces, at most {most} characters", MOST_NAME
        ),
    )
    model: str = Field("llama-3.1-8b", description=ONE_MODEL)  # a folder holds a config.json
    hardware: str = Field("h200", description=ONE_GPU)  # each with its sources
    profile: str | MeasuredService | None = None  # step times: of configs/profiles, a file, a black box; null: roofline
    deployment: Deployment
    cluster: Cluster = Cluster.model_construct()
    engine: Engine = Engine.model_construct()
    retrieval: Retrieval | None = None
    workload: Workload = Poisson.model_construct()
    slo: Slo = Slo.model_construct()
    run: RunOptions = RunOptions.model_construct()
    optimizations: Optimizations = Optimizations.model_construct()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if isinstance(self.workload, Rag) and self.retrieval is None:
            raise ValueError(
                message("workload.kind: 'rag' has no retrieval stage; allowed: with a section `retrieval: {}`")
            )
        return self


# --- reading and writing -------------------------------------------------------------------------

_KINDS: dict[str, dict[str, type[Node]]] = {
    "workload": {
        "poisson": Poisson,
        "gamma": Gamma,
        "constant": Constant,
        "concurrency": Concurrency,
        "sessions": Sessions,
        "rag": Rag,
        "multi_round_qa": MultiRoundQa,
        "trace": Trace,
    },
    "deployment": {"aggregated": Aggregated, "disaggregated": Disaggregated},
}


def config_root() -> Path:
    """The folder of shipped configs: the repository's `configs`, or `planner/_configs` of an installed wheel."""
    packaged = Path(__file__).parents[1] / "_configs"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "configs"


def find_config(name: str | Path) -> Path:
    """A deployment file: a path, or the name of a shipped one (`disagg`, `configs/disagg.yaml`)."""
    path = Path(name)
    if path.is_file():
        return path
    root = config_root()
    inner = Path(*path.parts[1:]) if path.parts[:1] == ("configs",) else path
    for candidate in (root / inner, root / f"{inner}.yaml"):
        if candidate.is_file():
            return candidate
    if path.is_dir():
        raise SpecError("{name}: is a folder; allowed: the path of a YAML file", shorten(str(name)))
    for kind, key in (("models", "model"), ("hardware", "hardware")):
        if (root / kind / f"{inner}.yaml").is_file():
            raise SpecError(
                "{name}: is no deployment but a name for {key}; allowed: --set {set}, or the path of a YAML file",
                shorten(str(name)),
                key,
                f"{key}={inner}",
            )
    shipped = sorted(file.stem for file in root.glob("*.yaml"))
    fault = unknown(str(inner).removesuffix(".yaml"), shipped)
    raise SpecError("{name}: no such file: {fault}, or the path of a YAML file", shorten(str(name)), fault)


def _unshared(data: Any) -> Any:
    """The same data without aliases, so that an override changes one place."""
    if isinstance(data, dict):
        return {key: _unshared(value) for key, value in data.items()}
    return [_unshared(item) for item in data] if isinstance(data, list) else data


def _prune(section: str, here: dict[str, Any], kind: Any) -> None:
    """Before `kind` (or mode) is set: drop what the new kind does not know. A trace brings all of its own requests."""
    kinds = _KINDS.get(section, {})
    known = kinds[kind].model_fields if isinstance(kind, str) and kind in kinds and kind != "trace" else {}
    for name in [name for name in here if name not in known]:
        del here[name]


def _override(data: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """`data` with `a.b=value` texts applied, kinds and modes first. Raises SpecError."""
    data = _unshared(data)
    parsed: list[tuple[list[str], Any]] = []
    for text in assignments:
        key, equals, value = text.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise SpecError("--set {text}: not an assignment; allowed: --set key.inner=value", shorten(text))
        parsed.append((parts, read_value(value, f"--set {shorten(key.strip())}")))
    for parts, value in sorted(parsed, key=lambda item: item[0][-1] not in ("kind", "mode")):
        here = data
        for part in parts[:-1]:
            if not isinstance(here.get(part), dict):
                here[part] = {}
            here = here[part]
        if parts[-1] in ("kind", "mode") and len(parts) > 1 and here.get(parts[-1]) != value:
            _prune(".".join(parts[:-1]), here, value)
        here[parts[-1]] = value
    return data


def _from_data(data: dict[str, Any], where: str, overrides: Sequence[str]) -> Spec:
    data = _override(data, overrides)
    workload = data.get("workload")
    if isinstance(workload, dict) and "kind" not in workload:
        data["workload"] = {"kind": "poisson", **workload}
    return validate(Spec, data, where, [text.partition("=")[0].strip() for text in overrides])


def parse(text: str, where: str = "spec", overrides: Sequence[str] = ()) -> Spec:
    """A Spec from YAML text; `where` names the source in errors. Raises SpecError."""
    return _from_data(read_mapping(text, where), where, overrides)


def load(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Spec:
    """A Spec from a file, a shipped config's name, or (None) the quickstart, with `a.b=value` overrides applied.

    Raises SpecError: one line with file, key, fault and what is allowed.
    """
    file = find_config("quickstart" if path is None else path)
    here = Path.cwd()
    where = file.relative_to(here) if file.is_relative_to(here) else file
    text = read_text(file)
    if _FOREIGN.search(text):
        raise SpecError("{where}: is another stack's file; allowed: the YAML that `planner import` makes of it", where)
    if _TABLE.match(text):
        raise SpecError(
            "{where}: is a table of requests, not a deployment; allowed: a YAML file, and `planner replay` for a trace",
            where,
        )
    return parse(text, str(where), overrides)


# JSON lines, or a header of three columns and a number below it.
_TABLE = re.compile(r"\ufeff?\s*(?:\{.*\}[ \t]*\r?\n\s*\{|[^\n:#{\[]+([,;\t])[^\n:#]+\1[^\n:#]*\n[^\n]*\d)")

# A script, a command line, or a key at the top that only other stacks have.
_FOREIGN = re.compile(
    r"\A#!|^(?:apiVersion|services|servingEngineSpec|modelArtifacts):|^[^#\n:]*\b(?:vllm serve|docker run)\b", re.M
)


def _plain(node: Node, said: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Keys that differ from their defaults (and the discriminators, and those that are `said`), as plain YAML data."""
    out: dict[str, Any] = {}
    said |= {"kind", "mode"} | _over_others(node)
    for name, field in type(node).model_fields.items():
        value = getattr(node, name)
        if name in said or field.is_required() or value != field.get_default(call_default_factory=True):
            engine = isinstance(node, PoolSpec) and isinstance(value, Engine)
            out[field.alias or name] = _plain(value, frozenset(value.model_fields_set)) if engine else _data(value)
    return out


def _over_others(node: Node) -> frozenset[str]:
    """Keys that say something even at their defaults: over a router's preset, and that sessions have this router."""
    if isinstance(node, Router):
        return frozenset(node.model_fields_set & ({"policy"} if node.preset is None else {*Router.model_fields}))
    if isinstance(node, (Aggregated, Disaggregated)):
        said = {"router"} if "policy" in node.router.model_fields_set else set()
        if node.router.preset is not None:
            said |= node.model_fields_set & {"local_prefill"}
        return frozenset(said)
    return frozenset()


def _data(value: Any) -> Any:
    if isinstance(value, Node):
        return _plain(value)
    if isinstance(value, dict):
        return {key: _data(item) for key, item in value.items()}
    return [_data(item) for item in value] if isinstance(value, (list, tuple)) else value


def dump(spec: Spec) -> str:
    """The spec as YAML with only the keys that differ from their defaults; `parse` gives the same spec back."""
    return written(_plain(spec), default_flow_style=None, width=110)


def schema() -> dict[str, Any]:
    """JSON Schema of the YAML, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Spec.model_json_schema(by_alias=True)}


def spec_hash(spec: Spec) -> str:
    """SHA-256 of what the spec says beyond its defaults; the same whatever the order of keys."""
    text = json.dumps(_plain(spec), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
