"""What the Ask page asks, as one frozen value: it is read from and written to the URL, and becomes a Spec."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from planner.engine.catalogue import hardware, names
from planner.engine.model_config import model_config
from planner.engine.profiles import shipped
from planner.messages import message, said
from planner.spec import Spec, SpecError, config_root, parse
from planner.spec.faults import unknown
from planner.spec.strict_yaml import written
from planner.suggestion.tasks import FEWEST, MOST, REQUESTS_PER_GPU
from planner.system.wires import default_preset
from planner.traffic.workload import at_rate
from planner.ui.prices import list_price
from planner.ui.uploads import file_of


@dataclass(frozen=True, slots=True)
class Card:
    """A kind of traffic: its name, what it means, typical lengths and targets. Lengths are means, in tokens."""

    title: str
    about: str
    icon: str
    prompt: int
    output: int
    rate: float
    ttft_ms: int
    tpot_ms: int


# Chat and code: means of the Azure LLM inference traces of 2023 (conversation 1155 / 211, code 2048 / 28).
CARDS: dict[str, Card] = {
    "chat": Card(
        "Chat", "Short questions, answers of a paragraph", ":material/chat:", 1155, 211, 20.0, 500, 30
    ),
    "rag": Card(
        "Document Q&A", "Retrieved passages and a question (RAG)", ":material/menu_book:", 3000, 100, 20.0, 500, 30
    ),
    "code": Card("Code", "Much context, a few lines back", ":material/code:", 2048, 28, 20.0, 300, 20),
    "writing": Card("Long writing", "A short request, pages of text", ":material/edit_note:", 300, 1500, 5.0, 1000, 30),
    "agents": Card(
        "Agents", "Many turns that each repeat the history", ":material/smart_toy:", 600, 150, 10.0, 1000, 30
    ),
}  # fmt: skip
TRACE = "trace"
TYPICAL = ("rate", "prompt", "output", "ttft_ms", "tpot_ms")  # what a card says
WANTS, LOADS = ("gpus", "fewest"), ("rate", "users")
SIGMA = 0.9  # of the logarithm of lengths, as in the Azure conversation trace
SYSTEM, QUESTION, CHUNKS = 200, 50, 4  # document Q&A: system prompt, question, passages
MOST_GPUS = 64  # of one answer in the browser; the command line has no limit
LONGEST = 128_000
MEASURED_LINK = "nvlink_nixl"  # as in configs/disagg.yaml


@dataclass(frozen=True, slots=True)
class Scenario:
    """Every field is a key of the URL. `prompt` and `output` are mean tokens, `rate` requests per second."""

    model: str = "llama-3.1-8b"
    hardware: str = "h200"
    gpus: int = 8
    traffic: str = "chat"
    want: str = "gpus"  # the best use of `gpus`, or "fewest": how few serve this load
    load: str = "rate"  # what says how much is sent: "rate", or "users" with their think time
    rate: float = 20.0
    users: int = 500
    think_s: float = 30.0  # between an answer and the same user's next message
    price: float | None = None  # US dollars a GPU-hour; None: the list price
    prompt: int = 1155
    output: int = 211
    ttft_ms: int = 500
    tpot_ms: int = 30
    attainment: float = 99.0  # per cent
    link: str = ""  # between GPUs; "": the one these GPUs have
    trace: str = ""  # a name in one of the trace folders
    requests: int = 0  # of each list; 0: as many as the command line takes
    seeds: int = 5
    extra: str = ""  # more keys, one `key=value` a line

    def with_card(self, name: str) -> Scenario:
        """Another kind of traffic. Its typical numbers replace those of the old kind, not what was typed instead."""
        if name not in CARDS:
            return replace(self, traffic=name)
        old, new = CARDS.get(self.traffic), CARDS[name]
        typed = [key for key in TYPICAL if old is not None and getattr(self, key) != getattr(old, key)]
        return replace(self, traffic=name, **{key: getattr(new, key) for key in TYPICAL if key not in typed})

    @property
    def sent_rate(self) -> float:
        """Requests a second. Of users: one request each in the time of an answer at the targets' pace, and thinking."""
        if self.load != "users":
            return self.rate
        return self.users / (self.think_s + (self.ttft_ms + self.output * self.tpot_ms) / 1e3)

    @property
    def most_gpus(self) -> int:
        """That may be used."""
        return min(MOST_GPUS, max(1, self.gpus)) if self.want == "gpus" else MOST_GPUS

    @property
    def wire(self) -> str:
        """The link that KV takes: the chosen one, else the GPU's own. Of NVLink one kind was measured."""
        own = default_preset(hardware(self.hardware))
        return self.link or (MEASURED_LINK if own.startswith("nvlink") else own)

    @property
    def price_per_gpu_hour(self) -> float | None:
        """US dollars: what was typed, else the list price; None: neither."""
        return list_price(self.hardware) if self.price is None else self.price

    def faults(self) -> dict[str, str]:
        """What is out of range, by field."""
        found: dict[str, str] = {}
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                found[name] = message("allowed: a number from {low:g} to {high:g}", low, high)
        return found

    @property
    def list_length(self) -> int:
        """Requests of each list, as `planner suggest` takes them."""
        return self.requests or min(max(FEWEST, REQUESTS_PER_GPU * self.gpus), MOST)

    def params(self) -> dict[str, str]:
        """What differs from the defaults, for the URL."""
        default = asdict(Scenario())
        return {name: _text(value) for name, value in asdict(self).items() if value != default[name]}

    def spec(self) -> Spec:
        """The question as a Spec: a deployment to start from, the traffic and the targets. Raises SpecError."""
        for name, fault in self.faults().items():
            raise SpecError("{key}={value}: {fault}", name, _text(getattr(self, name)), fault)
        data: dict[str, Any] = {
            "name": self.traffic if self.traffic in CARDS else "trace",
            "model": self.model,
            "hardware": self.hardware,
            "deployment": {
                "mode": "disaggregated",
                "prefill": {"replicas": 1},
                "decode": {"replicas": 1},
                "link": {"preset": self.wire},
            },
            "slo": {"ttft_ms": self.ttft_ms, "tpot_ms": self.tpot_ms, "attainment": self.attainment / 100},
            **self._traffic(),
        }
        if self.price_per_gpu_hour:
            data["cluster"] = {"price_per_gpu_hour": self.price_per_gpu_hour}
        lines = [line.strip() for line in self.extra.splitlines() if line.strip()]
        profile = shipped(self.model, self.hardware)
        if profile is not None and not any(line.startswith(("model=", "hardware=")) for line in lines):
            data["profile"] = profile
        spec = parse(written(data), "scenario", lines)
        if self.traffic == TRACE or any(line.startswith("workload.") for line in lines):
            return spec
        return at_rate(spec, self.sent_rate)

    def _traffic(self) -> dict[str, Any]:
        lengths = {"prompt_tokens": spread(self.prompt, LONGEST), "output_tokens": spread(self.output, 16_000)}
        if self.traffic == TRACE:
            return {"workload": {"kind": "trace", "path": str(trace_path(self.trace))}}
        if self.traffic == "rag":
            chunk = max(16, (self.prompt - SYSTEM - QUESTION) // CHUNKS)
            workload = {
                "kind": "rag", "rate": self.sent_rate, "requests": self.list_length, "system_tokens": SYSTEM,
                "question_tokens": QUESTION, "output_tokens": lengths["output_tokens"],
            }  # fmt: skip
            return {"workload": workload, "retrieval": {"workers": 32, "top_k": CHUNKS, "chunk_tokens": chunk}}
        if self.traffic == "agents":
            workload = {
                "kind": "sessions", "rate": self.sent_rate / 8, "sessions": max(8, self.list_length // 8), "turns": 8,
                "think_time_s": 1.0, "system_tokens": 2000, **lengths,
            }  # fmt: skip
            return {"workload": workload}
        return {"workload": {"kind": "poisson", "rate": self.sent_rate, "requests": self.list_length, **lengths}}


def spread(mean: int, most: int) -> dict[str, Any]:
    """Lengths around a mean, as real traffic has them."""
    return {"kind": "lognormal", "mean": mean, "sigma": SIGMA, "min": 4, "max": min(most, 8 * mean)}


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


LANGUAGE = "lang"  # the URL's key beside those of the scenario
LIMITS: dict[str, tuple[float, float]] = {
    "gpus": (1, MOST_GPUS),
    "rate": (0.01, 100_000),
    "users": (1, 10_000_000),
    "think_s": (0, 86_400),
    "price": (0, 1000),
    "prompt": (1, LONGEST),
    "output": (1, 16_000),
    "ttft_ms": (1, 600_000),
    "tpot_ms": (1, 10_000),
    "attainment": (1, 100),
    "requests": (0, 10_000),
    "seeds": (1, 10),
}


def read(params: Mapping[str, str]) -> tuple[Scenario, list[str]]:
    """A scenario from a URL's keys, and one line for each value that cannot be used (its default is kept then).

    Keys that are none of ours get one line together.
    """
    values: dict[str, Any] = {}
    faults: list[str] = []
    for field in fields(Scenario):
        text = params.get(field.name)
        if text is None:
            continue
        try:
            values[field.name] = _value(field.name, str(field.type), text)
        except ValueError as error:
            faults.append(message("{key}={value}: {fault}", field.name, text, error))
    known = [*(field.name for field in fields(Scenario)), LANGUAGE]
    strange = [name for name in params if name not in known]
    if strange:
        fault, others = unknown(strange[0], known), len(strange) - 1
        faults.append(message("{fault} ({count} more unknown)", fault, others) if others else fault)
    return Scenario(**values), faults


def _value(name: str, kind: str, text: str) -> int | float | str:
    """Raises ValueError with what is allowed."""
    if name in LIMITS:
        low, high = LIMITS[name]
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            raise ValueError(message("allowed: a number from {low:g} to {high:g}", low, high))
        return int(number) if kind == "int" else number
    if name == "model":
        try:
            model_config(text)
        except SpecError as error:
            raise ValueError(said(error)) from None
    if name == "trace":
        try:
            trace_path(text)
        except SpecError as error:
            raise ValueError(said(error)) from None
    allowed = {
        "want": WANTS, "load": LOADS, "hardware": names("hardware"), "link": ["", *names("links")],
        "traffic": [*CARDS, TRACE],
    }.get(name)  # fmt: skip
    if allowed is not None and text not in allowed:
        raise ValueError(message("allowed: {allowed}", ", ".join(allowed)))
    return text


# --- traces ------------------------------------------------------------------------------------


def traces() -> dict[str, Path]:
    """The traces that ship, by name."""
    packaged = config_root().parent / "_traces"
    folder = packaged if packaged.is_dir() else config_root().parent / "traces"
    return {
        path.name: path
        for path in sorted(folder.iterdir())
        if path.is_file() and path.suffix in (".jsonl", ".json", ".csv", ".gz")
    }


def trace_path(name: str) -> Path:
    """A trace that ships, or an uploaded one by its whole name; a name reaches nothing else. Raises SpecError."""
    known = traces()
    found = known.get(name) or file_of(name)
    if found is None:
        raise SpecError(
            "trace: {name}; allowed: {known}, or an uploaded file", name or message("none chosen"), ", ".join(known)
        )
    return found
