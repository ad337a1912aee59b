"""The same load for other tools: `vllm bench serve` (vLLM 0.32) and AIPerf (0.12).

Poisson, gamma, and closed-loop loads of fixed lengths are said in options; whatever has other lengths or contents is
replayed from `requests.jsonl` (Mooncake's format), which both tools read. Requests that wait for others (sessions) are
sent by `planner live` only.
"""

from __future__ import annotations

import shlex

from planner.interop.vllm_script import served_name
from planner.interop.workers import hub_id
from planner.spec import Concurrency, Gamma, MultiRoundQa, Poisson, Sessions, Spec
from planner.system.resolve import System

TRACE = "requests.jsonl"
SPEC = "planner.yaml"
RESULT = "vllm-bench.json"  # with the details of each request: `planner results`, or a trace to replay
BLOCK_TOKENS = 512  # of that file
URL = "http://127.0.0.1:${PORT:-8000}"


def in_options(spec: Spec) -> bool:
    """Whether the load can be said in options: fixed lengths, no shared documents or histories."""
    workload = spec.workload
    if not isinstance(workload, Poisson | Gamma | Concurrency):
        return False
    return isinstance(workload.prompt_tokens, int) and isinstance(workload.output_tokens, int)


def replayable(spec: Spec) -> bool:
    """Whether all send times are known beforehand, so that the load can be a trace."""
    return not in_options(spec) and not isinstance(spec.workload, Concurrency | Sessions | MultiRoundQa)


def vllm_bench(system: System, model: str | None = None) -> list[str]:
    """The command. vLLM's random prompts are exactly as long as asked for, and `--ignore-eos` fixes the answers."""
    spec = system.spec
    command = ["vllm", "bench", "serve", "--backend", "openai", "--endpoint", "/v1/completions"]
    command += [
        "--base-url",
        URL,
        "--model",
        model or _model(spec),
        "--served-model-name",
        served_name(system),
    ]
    command += ["--ignore-eos", "--seed", str(spec.run.seed)]
    workload = spec.workload
    if in_options(spec) and isinstance(workload, Poisson | Gamma | Concurrency):
        assert isinstance(workload.prompt_tokens, int)
        command += ["--dataset-name", "random"]
        command += ["--random-prefix-len", str(workload.shared_prefix_tokens)]
        command += ["--random-input-len", str(max(workload.prompt_tokens - workload.shared_prefix_tokens, 1))]
        command += ["--random-output-len", str(workload.output_tokens), "--random-range-ratio", "0"]
        command += ["--num-prompts", str(workload.requests)]
        if isinstance(workload, Concurrency):
            command += ["--request-rate", "inf", "--max-concurrency", str(workload.concurrency)]
        else:
            burstiness = workload.burstiness if isinstance(workload, Gamma) else 1.0
            command += ["--request-rate", f"{workload.rate:g}", "--burstiness", f"{burstiness:g}"]
    else:
        command += ["--dataset-name", "timed_trace", "--dataset-path", TRACE, "--self-timed"]
        command += ["--timed-trace-chunk-hash-size", str(BLOCK_TOKENS), "--timed-trace-sec-multiplier", "0.001"]
    slo = spec.slo
    goals = [("ttft", slo.ttft_ms), ("tpot", slo.tpot_ms), ("e2el", slo.e2e_ms)]
    targets = [f"{name}:{limit:g}" for name, limit in goals if limit is not None]
    command += ["--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,90,99"]
    command += ["--save-result", "--save-detailed", "--result-filename", RESULT]
    return command + (["--goodput", *targets] if targets else [])


def aiperf(system: System, model: str | None = None) -> list[str]:
    """The command. AIPerf calls TPOT `inter_token_latency`; `ignore_eos` and `min_tokens` fix the answers' lengths."""
    spec = system.spec
    workload = spec.workload
    command = ["aiperf", "profile", "--model", served_name(system), "--tokenizer", model or _model(spec)]
    command += ["--url", URL, "--endpoint-type", "completions", "--streaming"]
    command += ["--random-seed", str(spec.run.seed), "--extra-inputs", "ignore_eos:true"]
    if in_options(spec) and isinstance(workload, Poisson | Gamma | Concurrency):
        command += [
            "--synthetic-input-tokens-mean",
            str(workload.prompt_tokens),
            "--synthetic-input-tokens-stddev",
            "0",
        ]
        command += ["--output-tokens-mean", str(workload.output_tokens), "--output-tokens-stddev", "0"]
        command += ["--extra-inputs", f"min_tokens:{workload.output_tokens}", "--request-count", str(workload.requests)]
        if isinstance(workload, Concurrency):
            command += ["--concurrency", str(workload.concurrency)]
        else:
            command += ["--request-rate", f"{workload.rate:g}"]
            smooth = isinstance(workload, Gamma)
            command += ["--arrival-pattern", "gamma" if smooth else "poisson"]
            command += ["--arrival-smoothness", f"{workload.burstiness:g}"] if isinstance(workload, Gamma) else []
    else:
        command += ["--input-file", TRACE, "--custom-dataset-type", "mooncake_trace", "--fixed-schedule"]
    slo = spec.slo
    goals = [
        ("time_to_first_token", slo.ttft_ms),
        ("inter_token_latency", slo.tpot_ms),
        ("request_latency", slo.e2e_ms),
    ]
    targets = " ".join(f"{name}:{limit:g}" for name, limit in goals if limit is not None)
    return command + (["--goodput", targets] if targets else [])


def _model(spec: Spec) -> str:
    return hub_id(spec.model) or spec.model


def script(system: System, model: str | None = None) -> str:
    """A bash script with a command for each tool. `model`: the folder of a model without published weights."""
    own = ["planner", "live", SPEC, "--endpoint", URL]
    commands = {"planner": own}
    if in_options(system.spec) or replayable(system.spec):
        commands = {"vllm": vllm_bench(system, model), "aiperf": aiperf(system, model), "planner": own}

    def shown(command: list[str]) -> str:
        lines: list[str] = []
        for word in command:
            quoted = f'"{word}"' if word == URL else shlex.quote(word)
            if word.startswith("--") or not lines:
                lines.append(quoted)
            else:
                lines[-1] += f" {quoted}"
        return " \\\n    ".join(lines)

    usage = f"bash load.sh [{'|'.join(commands)}]"
    cases = "".join(f"  {name})\n    {shown(command)} ;;\n" for name, command in commands.items())
    return (
        "#!/usr/bin/env bash\n"
        f"# The load of {system.spec.name}: {usage}\n"
        "set -euo pipefail\n"
        'cd "$(dirname "${BASH_SOURCE[0]}")"\n'
        f"case ${{1:-{next(iter(commands))}}} in\n{cases}"
        f'  *)\n    echo "usage: {usage}" >&2; exit 2 ;;\n'
        "esac\n"
    )
