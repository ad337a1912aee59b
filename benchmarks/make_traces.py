"""Writes the example traces of traces/: python benchmarks/make_traces.py [FOLDER]. The same every time."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from pathlib import Path

from planner.spec import Spec
from planner.traffic.traces import write_mooncake
from planner.traffic.workload import build

REQUESTS = 300

# Whole blocks of 512 tokens for the system prompt and the chunks, so that shared documents are shared blocks.
DOCUMENTS = {
    "kind": "rag",
    "rate": 2.0,
    "requests": REQUESTS,
    "system_tokens": 512,
    "question_tokens": {"kind": "lognormal", "mean": 200, "sigma": 0.8, "max": 2000},
    "output_tokens": {"kind": "lognormal", "mean": 150, "sigma": 0.7, "max": 800},
}
RETRIEVAL = {"top_k": 3, "chunk_tokens": 512, "order": "canonical", "popularity": {"documents": 60, "zipf_s": 1.0}}

# Conversation-like lengths, arrivals burstier than Poisson.
CHAT = {
    "kind": "gamma",
    "rate": 3.0,
    "burstiness": 0.6,
    "requests": REQUESTS,
    "prompt_tokens": {"kind": "lognormal", "mean": 1200, "sigma": 0.9, "max": 8000},
    "output_tokens": {"kind": "lognormal", "mean": 200, "sigma": 0.7, "max": 1000},
}
CHAT_START = datetime(2026, 1, 1, 9)


def spec(name: str, workload: dict[str, object], retrieval: dict[str, object] | None = None) -> Spec:
    fields = {"schema": 1, "name": name, "deployment": {"mode": "aggregated"}, "workload": workload}
    return Spec.model_validate({**fields, "retrieval": retrieval, "run": {"seed": 7}})


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_mooncake(build(spec("documents", DOCUMENTS, RETRIEVAL)), folder / "documents_mooncake.jsonl")
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    for arrival in build(spec("chat", CHAT)).start():
        at = CHAT_START + timedelta(seconds=arrival.time_s)
        stamp = at.isoformat(sep=" ", timespec="microseconds")
        lines.append(f"{stamp},{arrival.request.prompt_tokens},{arrival.request.output_tokens}")
    (folder / "chat_azure.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "traces")
