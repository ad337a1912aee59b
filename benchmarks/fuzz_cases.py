"""The cases of `fuzz.py`: for each kind of input a command line and the files that it reads."""

from __future__ import annotations

import contextlib
import functools
import gzip
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from fuzz_values import VALUES, as_json, as_yaml, broken, damaged, like, short
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # where the traces are
from trace_samples import AZURE, BAILIAN, BURSTGPT  # noqa: E402

SMALL = ["--set", "workload.requests=20"]


@dataclass(frozen=True)
class Case:
    """A command line; `@DIR@` in it is the folder that holds `files`."""

    kind: str
    words: tuple[str, ...]
    files: dict[str, bytes] = field(default_factory=dict)
    answer: bytes | None = None  # of a server at `{url}`


def _loaded(path: Path) -> Any:
    """Of libyaml, where there is one: ten times as fast."""
    return yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


CONFIGS = sorted(path for path in (ROOT / "configs").glob("*.yaml") if not path.stem.startswith("cpu"))
DOCUMENTS = {path.stem: _loaded(path) for path in CONFIGS}


@functools.cache
def _schema() -> dict[str, Any]:
    sys.path.insert(0, str(ROOT))
    from planner.spec import schema

    return schema()


def _resolved(node: dict[str, Any]) -> dict[str, Any]:
    return _schema()["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node


@functools.cache
def keys(name: str = "") -> dict[str, tuple[dict[str, Any], ...]]:
    """Every key of the YAML that the types know, dotted, and the schemas of its values.

    With a `name`, those of the kinds of deployment and workload that this configuration has.
    """
    found: dict[str, tuple[dict[str, Any], ...]] = {}

    def walk(node: dict[str, Any], path: str, document: Any) -> None:
        node = _resolved(node)
        kinds = node.get("discriminator", {"mapping": {}})
        kind = document.get(kinds.get("propertyName")) if isinstance(document, dict) else None
        if kind in kinds["mapping"]:
            walk({"$ref": kinds["mapping"][kind]}, path, document)
        else:
            for inner in [*node.get("anyOf", ()), *node.get("oneOf", ())]:
                walk(inner, path, document)
        found[path] = (*found.get(path, ()), node)
        for name, inner in node.get("properties", {}).items():
            if path.count(".") < 5:
                below = document.get(name) if isinstance(document, dict) else None
                walk(inner, f"{path}.{name}" if path else name, below)

    walk(_schema(), "", DOCUMENTS.get(name))
    del found[""]
    return found


@functools.cache
def _names() -> tuple[str, ...]:
    """Of all that ships: models, GPUs, profiles, links, policies."""
    from planner.routing import POLICIES

    return (*sorted({path.stem for path in (ROOT / "configs").rglob("*.yaml")}), *POLICIES)


def fitting(node: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that a schema allows, from usual ones to the ends of what it says."""
    node = _resolved(node)
    inner = [*node.get("anyOf", ()), *node.get("oneOf", ())]
    if inner:
        return st.one_of([fitting(one) for one in inner])
    if "enum" in node:
        return st.sampled_from(node["enum"])
    if "const" in node:
        return st.just(node["const"])
    most = node.get("maximum", node.get("le", node.get("exclusiveMaximum", 1e19)))
    match node.get("type"):
        case "boolean":
            return st.booleans()
        case "integer":
            return st.one_of(st.integers(1, 64), st.floats(0, 19).map(lambda power: int(min(10**power, most))))
        case "number":
            usual = st.floats(0.001, 100)
            extreme = st.floats(-20, 20).map(lambda power: 10.0**power)
            return st.one_of(usual, extreme).map(lambda value: min(value, most))
        case "string":
            return st.sampled_from(_names())
        case "null":
            return st.none()
        case "array":
            return st.lists(fitting(node.get("items", {})), min_size=1, max_size=4)
        case "object":
            known = node.get("properties", {})
            needed = {name for name, one in known.items() if "const" in one} | set(node.get("required", ()))
            drawn = {name: fitting(one) for name, one in known.items() if name in needed}
            others = {name: fitting(one) for name, one in known.items() if name not in needed}
            return st.fixed_dictionaries(drawn, optional=others)
    return VALUES


@st.composite
def specs(draw: st.DrawFn) -> Case:
    document = short(draw(broken(DOCUMENTS[draw(st.sampled_from(sorted(DOCUMENTS)))])))
    data = draw(st.one_of(st.just(as_yaml(document)), damaged(as_yaml(document))))
    return Case("spec", ("simulate", "@DIR@/s.yaml", "--no-save", "--json"), {"s.yaml": data})


def _set(key: str, value: Any) -> list[str]:
    value = short(value, key)
    text = value if isinstance(value, str) else json.dumps(value)
    return ["--set", f"{key}={text}".replace("\x00", "\\0")]


@st.composite
def sets(draw: st.DrawFn) -> Case:
    words = ["simulate", draw(st.sampled_from(sorted(DOCUMENTS))), "--no-save", "--json"]
    for _ in range(draw(st.integers(1, 3))):
        words += _set(draw(st.sampled_from(sorted(keys()))), draw(VALUES))
    return Case("--set", tuple(words))


SECTIONS = ("deployment", "workload", "schema")  # whole, they are seldom complete


@st.composite
def values(draw: st.DrawFn) -> Case:
    """Keys that a configuration knows with values that fit: what is simulated, not what is refused."""
    name = draw(st.sampled_from(sorted(DOCUMENTS)))
    words = ["simulate", name, "--no-save", "--json"]
    if "requests" in DOCUMENTS[name]["workload"]:
        words += SMALL
    known = {key: plain for key, nodes in keys(name).items() if (plain := [node for node in nodes if "type" in node])}
    for _ in range(draw(st.integers(1, 4))):
        key = draw(st.sampled_from(sorted(known)))
        words += _set(key, draw(fitting(draw(st.sampled_from(known[key])))))
    return Case("values", tuple(words))


OPTIONS: dict[str, tuple[str, ...]] = {
    "simulate agg --no-save": ("--seed", "--intervals", "--set", "--table", "--out"),
    "replay {root}/traces/chat_azure.csv --no-save": (
        "--speedup",
        "--requests",
        "--from",
        "--to",
        "--sample",
        "--rate",
        "--format",
        "--seed",
        "--config",
    ),
    "trace {root}/traces/documents_mooncake.jsonl": (
        "--cache",
        "--requests",
        "--from",
        "--to",
        "--sample",
        "--block-tokens",
        "--format",
    ),
    "export disagg": ("--to", "--out", "--set"),
    "show": ("--table",),
    "import": ("--set", "--out"),
    "metrics": ("--json",),
}


@st.composite
def options(draw: st.DrawFn) -> Case:
    command = draw(st.sampled_from(sorted(OPTIONS)))
    words = command.replace("{root}", str(ROOT)).split()
    for _ in range(draw(st.integers(1, 2))):
        value = draw(VALUES)
        text = value if isinstance(value, str) else json.dumps(value)
        option = draw(st.sampled_from(OPTIONS[command]))
        if option == "--out":  # elsewhere it would be written
            text = "@DIR@/" + text.replace("/", "_").replace("..", "_")
        if option == "--intervals":
            text = text[:1]
        words += [option, text.replace("\x00", "\\0")]
    return Case("options", tuple(words))


MOONCAKE = [
    {"timestamp": 0, "input_length": 1030, "output_length": 5, "hash_ids": [0, 1, 2]},
    {"timestamp": 900, "input_length": 1100, "output_length": 6, "hash_ids": [0, 1, 3]},
    {"delay": 9, "session_id": "a", "input_length": 30, "output_length": 7},
]
AGENT = {
    "id": "s",
    "block_size": 64,
    "requests": [
        {"t": 0.0, "type": "s", "in": 200, "out": 10, "hash_ids": [1, 2, 3]},
        {
            "t": 1.0,
            "type": "subagent",
            "status": "completed",
            "requests": [{"t": 1.0, "type": "n", "in": 70, "out": 5, "hash_ids": [9]}],
        },
        {"t": 9.0, "type": "n", "in": 300, "out": 20, "hash_ids": [1, 2, 3, 4], "think_time": 0.5},
    ],
}
SHAREGPT = [{"id": "1", "conversations": [{"from": "human", "value": "x" * 99}, {"from": "gpt", "value": "y" * 9}]}]
BENCH = {"start_times": [1.0, 2.0], "input_lens": [8, 9], "output_lens": [3, 4], "backend": "vllm"}
AIPERF = [
    {
        "metadata": {"request_start_ns": 10**18, "request_end_ns": 10**18 + 5, "benchmark_phase": "profiling"},
        "metrics": {"input_sequence_length": {"value": 550}, "output_sequence_length": {"value": 120}},
        "error": None,
    }
]
GUIDELLM = {
    "benchmarks": [{"requests": {"successful": [{"prompt_tokens": 9, "output_tokens": 2, "request_start_time": 1.0}]}}]
}
DATASET = {"0": {"input_tokens": "{100: 0.25, 200: 0.75}", "output_tokens": "{7: 1.0}"}}
WINDOWS = "0,2.0,1.5,Gamma,0.4,1.0\n60,0,0,,0,0\n120,4.0,2.0,Weibull,0.6,1.0\n"


@st.composite
def _cells(draw: st.DrawFn, text: str) -> bytes:
    """A CSV with a cell changed."""
    lines = text.splitlines()
    row = draw(st.integers(0, len(lines) - 1))
    parts: list[Any] = lines[row].split(",")
    place = draw(st.integers(0, len(parts) - 1))
    with contextlib.suppress(ValueError):
        parts[place] = float(parts[place])
    parts[place] = str(draw(st.one_of(VALUES, like(parts[place]))))
    lines[row] = ",".join(map(str, parts))
    return "\n".join(lines).encode("utf-8", "replace")


@st.composite
def traces(draw: st.DrawFn) -> Case:
    form = draw(
        st.sampled_from(
            [
                "mooncake",
                "bailian",
                "azure",
                "burstgpt",
                "agents",
                "sharegpt",
                "vllm_bench",
                "aiperf",
                "guidellm",
                "servegen",
                "planner",
            ]
        )
    )
    listed: dict[str, Any] = {"mooncake": MOONCAKE, "bailian": BAILIAN, "aiperf": AIPERF}
    whole: dict[str, Any] = {"agents": AGENT, "sharegpt": SHAREGPT, "vllm_bench": BENCH, "guidellm": GUIDELLM}
    files: dict[str, bytes] = {}
    if form in listed:
        rows = draw(broken(listed[form]))
        data = b"\n".join(as_json(row) for row in rows) if isinstance(rows, list) else as_json(rows)
    elif form in whole:
        data = as_json(draw(broken(whole[form])))
    elif form == "servegen":
        files["c-dataset.json"] = draw(damaged(as_json(draw(broken(DATASET)))))
        data = WINDOWS.encode()
    elif form == "planner":
        data = Path(ROOT, "benchmarks/recorded").exists() and _table() or b""
    else:
        data = draw(_cells(AZURE if form == "azure" else BURSTGPT))
    name = "c-trace.csv" if form == "servegen" else "t"
    files[name] = draw(st.one_of(st.just(data), damaged(data)))
    which = draw(st.sampled_from(["auto", "auto", form]))
    words = draw(
        st.sampled_from(
            [
                ("trace", f"@DIR@/{name}", "--json", "--format", which),
                ("trace", f"@DIR@/{name}", "--strict", "--format", which),
                ("replay", f"@DIR@/{name}", "--no-save", "--json", "--format", which, "--config", "agg"),
                ("replay", f"@DIR@/{name}", "--no-save", "--json", "--closed-loop", "--rate", "5", "--requests", "9"),
            ]
        )
    )
    return Case("traces", words, files)


@functools.cache
def _table() -> bytes:
    found = sorted((ROOT / "planner" / "ui" / "recordings").rglob("requests.parquet"))
    return found[0].read_bytes() if found else b"PAR1"


LOOPS = (
    b"for i in $(seq 1 2); do for j in {1..2}; do x=$x$i; vllm serve llama --port $j; done; done\n",
    b"for ((i=0; i<4; i++)); do vllm serve llama --tensor-parallel-size 2 --port $((8000+i)); done\n",
)


@functools.cache
def _deployments() -> tuple[bytes, ...]:
    """Files that `planner import` reads: what export writes, and the tests' own."""
    folders = [ROOT / "tests" / "data", ROOT.parent / "shared" / "cases"]
    texts = [
        path.read_bytes()
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".yaml", ".yml", ".sh")
    ]
    return (*LOOPS, *(text for text in texts if len(text) < 20_000))


@st.composite
def imports(draw: st.DrawFn) -> Case:
    data = draw(st.sampled_from(_deployments()))
    with contextlib.suppress(yaml.YAMLError, UnicodeDecodeError):
        value = yaml.safe_load(data)
        if isinstance(value, dict) and draw(st.booleans()):
            data = as_yaml(draw(broken(value)))
    return Case("import", ("import", "@DIR@/f", "--json"), {"f": draw(damaged(data))})


@functools.cache
def _yaml_of(folder: str) -> dict[str, Any]:
    return {path.stem: _loaded(path) for path in sorted((ROOT / "configs" / folder).glob("*.yaml"))}


@st.composite
def catalogues(draw: st.DrawFn) -> Case:
    """Profiles, models, GPUs and links of one's own."""
    folder, key = draw(st.sampled_from([("profiles", "profile"), ("models", "model"), ("hardware", "hardware")]))
    entries = _yaml_of(folder)
    data = as_yaml(draw(broken(entries[draw(st.sampled_from(sorted(entries)))])))
    words = ("simulate", "disagg", "--no-save", "--json", *SMALL, "--set", f"{key}=@DIR@/c.yaml")
    return Case(folder, words, {"c.yaml": draw(st.one_of(st.just(data), damaged(data)))})


CHECKPOINT = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "vocab_size": 128256,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
    "quantization_config": {"quant_method": "fp8"},
    "rope_scaling": {"factor": 8.0, "rope_type": "llama3"},
}


@st.composite
def checkpoints(draw: st.DrawFn) -> Case:
    data = as_json(draw(broken(CHECKPOINT)))
    words = ("simulate", "agg", "--no-save", "--json", *SMALL, "--set", "model=@DIR@/m", "--set", "profile=null")
    return Case("checkpoints", words, {"m/config.json": draw(st.one_of(st.just(data), damaged(data)))})


@functools.cache
def _run_files() -> dict[str, bytes]:
    """A run folder as this version writes it."""
    import planner
    from planner.spec import parse

    spec = parse("{schema: 1, name: a, deployment: {mode: aggregated}, workload: {kind: poisson, requests: 9}}")
    with tempfile.TemporaryDirectory() as folder:
        path = planner.simulate(spec).save(Path(folder) / "run")
        return {file.name: file.read_bytes() for file in Path(path).iterdir()}


@st.composite
def runs(draw: st.DrawFn) -> Case:
    files = dict(_run_files())
    if draw(st.booleans()):
        files["manifest.json"] = as_json(draw(broken(json.loads(files["manifest.json"]))))
    name = draw(st.sampled_from(sorted(files)))
    files[name] = draw(damaged(files[name]))
    words = draw(
        st.sampled_from(
            [
                ("show", "@DIR@/run"),
                ("show", "@DIR@/run", "--json"),
                ("compare", "@DIR@/run", "@DIR@/run"),
                ("show", "@DIR@/run", "--table", "vllm"),
            ]
        )
    )
    return Case("runs", words, {f"run/{name}": data for name, data in files.items()})


PERF = [
    {
        "start_time": 1.0,
        "end_time": 3.0,
        "info": {"input_tokens": 9, "response_metrics": {"output_tokens": 2, "output_token_times": [2.0, 3.0]}},
        "error": None,
    }
]
MEASURED: dict[str, Any] = {
    "vllm_bench": BENCH | {"ttfts": [0.1, 0.2], "itls": [[0.1, 0.1], [0.1, 0.1, 0.2]], "errors": ["", ""]},
    "aiperf": [
        AIPERF[0]
        | {
            "metrics": AIPERF[0]["metrics"]
            | {"time_to_first_token": {"value": 9.0}, "inter_chunk_latency": {"value": [5]}}
        }
    ],
    "guidellm": {
        "benchmarks": [
            {
                "config": {},
                "metrics": {},
                "requests": {
                    "successful": [
                        {
                            "prompt_tokens": 9,
                            "output_tokens": 2,
                            "request_start_time": 1.0,
                            "request_latency": 2.0,
                            "time_to_first_token_ms": 40.0,
                        }
                    ],
                    "incomplete": [],
                    "errored": [{"request_start_time": 1.0, "error": "no"}],
                },
            }
        ]
    },
    "inference_perf": PERF,
}
QA = (
    "prompt_tokens,generation_tokens,ttft,generation_time,user_id,question_id,launch_time,finish_time\n"
    "100,20,0.1,0.5,1,1,1.0,1.6\n120,20,0.1,0.5,2,1,1.5,2.1\n"
)


@st.composite
def results(draw: st.DrawFn) -> Case:
    """What other tools measured, as a run and as what a profile is fitted on."""
    tool = draw(st.sampled_from([*MEASURED, "multi_round_qa"]))
    if tool == "multi_round_qa":
        data = draw(_cells(QA))
    else:
        rows = draw(broken(MEASURED[tool]))
        lines = tool == "aiperf" and isinstance(rows, list)
        data = b"\n".join(as_json(row) for row in rows) if lines else as_json(rows)
    name = "r.csv" if tool == "multi_round_qa" else "r.json"
    words = draw(
        st.sampled_from(
            [
                ("results", f"@DIR@/{name}", "--out", "@DIR@/run", "--json"),
                ("results", f"@DIR@/{name}", "agg", "--out", "@DIR@/run", "--json"),
                ("calibrate", "agg", "--from", f"@DIR@/{name}", "--out", "@DIR@/p.yaml", "--json"),
            ]
        )
    )
    return Case("results", words, {name: draw(st.one_of(st.just(data), damaged(data)))})


GRID = {
    "base": "agg",
    "set": {"workload.requests": [5, 6], "workload.rate": [8, 12], "deployment.replicas": [1]},
    "seeds": [0, 1],
}


@st.composite
def grids(draw: st.DrawFn) -> Case:
    data = as_yaml(short(draw(broken(GRID))))
    words = ("sweep", "@DIR@/g.yaml", "--out", "@DIR@/out", "--processes", "1", "--json")
    return Case("sweep", words, {"g.yaml": draw(st.one_of(st.just(data), damaged(data)))})


@functools.cache
def _recording() -> tuple[Any, ...]:
    """The beginning of a recorded stack."""
    file = ROOT / "planner" / "watching" / "recordings" / "small-budget.jsonl.gz"
    with gzip.open(file, "rt") as lines:
        return tuple(json.loads(line) for line, _ in zip(lines, range(9), strict=False))


@st.composite
def recordings(draw: st.DrawFn) -> Case:
    rows = draw(broken(list(_recording())))
    data = b"\n".join(as_json(row) for row in rows) if isinstance(rows, list) else as_json(rows)
    return Case(
        "watch",
        ("watch", "--replay", "@DIR@/w", "--no-save", "--json"),
        {"w": draw(st.one_of(st.just(data), damaged(data)))},
    )


@st.composite
def steps(draw: st.DrawFn) -> Case:
    """Steps that a profile is fitted on."""
    data = draw(_cells((ROOT / "tests" / "data" / "h200-async-steps.csv").read_text()))
    words = ("calibrate", "agg", "--from", "@DIR@/s.csv", "--out", "@DIR@/p.yaml", "--json")
    return Case("steps", words, {"s.csv": draw(st.one_of(st.just(data), damaged(data)))})


CHUNK = {"choices": [{"index": 0, "text": "a", "delta": {"content": "a"}, "finish_reason": None}], "usage": None}
LAST = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}}


@st.composite
def endpoints(draw: st.DrawFn) -> Case:
    """Servers that answer as they like."""
    lines = [
        b"data: " + as_json(draw(broken(CHUNK))),
        b"data: " + as_json(CHUNK),
        b"data: " + as_json(draw(broken(LAST))),
        b"data: [DONE]",
    ]
    body = draw(st.one_of(st.just(b"\n\n".join(lines) + b"\n\n"), damaged(b"\n\n".join(lines))))
    if draw(st.integers(0, 9)) == 0:
        body = b"x" * draw(st.sampled_from([10**6, 5 * 10**7]))
    status = draw(st.sampled_from([b"200 OK", b"200 OK", b"500 No", b"404 No", b"999", b""]))
    kind = draw(st.sampled_from([b"text/event-stream", b"application/json", b""]))
    answer = b"HTTP/1.1 " + status + b"\r\nContent-Type: " + kind + b"\r\nConnection: close\r\n\r\n" + body
    words = (
        "live",
        "cpu-agg",
        "--endpoint",
        "{url}",
        "--no-save",
        "--json",
        "--set",
        "workload={kind: constant, rate: 20, requests: 3, prompt_tokens: 9, output_tokens: 2}",
    )
    return Case("endpoints", words, {}, answer)


KINDS: dict[str, Callable[[], st.SearchStrategy[Case]]] = {
    "spec": specs,
    "--set": sets,
    "values": values,
    "options": options,
    "traces": traces,
    "import": imports,
    "catalogues": catalogues,
    "checkpoints": checkpoints,
    "runs": runs,
    "results": results,
    "sweep": grids,
    "watch": recordings,
    "steps": steps,
    "endpoints": endpoints,
}
