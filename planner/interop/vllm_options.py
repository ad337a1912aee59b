"""Engines' options: which are read, which say nothing about speed, and which cannot be left out unnoticed.

vLLM's names; SGLang's and TensorRT-LLM's are turned into them. The list of vLLM 0.32's options that take no value, or
several words, was printed from its own parser.
"""

from __future__ import annotations

import difflib
import re
from functools import lru_cache
from pathlib import Path

SHORT = {
    "tp": "tensor-parallel-size", "pp": "pipeline-parallel-size", "dp": "data-parallel-size", "q": "quantization",
    "pcp": "prefill-context-parallel-size", "dcp": "decode-context-parallel-size", "ep": "enable-expert-parallel",
    "dpl": "data-parallel-size-local", "dpr": "data-parallel-start-rank", "dpn": "data-parallel-rank",
    "dpa": "data-parallel-address", "dpp": "data-parallel-rpc-port", "dpb": "data-parallel-backend",
    "dph": "data-parallel-hybrid-lb", "dpe": "data-parallel-external-lb", "n": "nnodes", "r": "node-rank",
    "cc": "compilation-config", "ac": "attention-config", "sc": "speculative-config", "asc": "api-server-count",
    "device-memory-utilization": "gpu-memory-utilization", "tensor-parallel": "tensor-parallel-size",
    "pipeline-parallel": "pipeline-parallel-size", "data-parallel": "data-parallel-size", "quant": "quantization",
    "hf-override": "hf-overrides",
}  # fmt: skip
# Names of other engines' options for vLLM's.
DIALECTS: dict[str, dict[str, str]] = {
    "sglang": {
        "model-path": "model", "tp": "tensor-parallel-size", "tp-size": "tensor-parallel-size",
        "dp": "data-parallel-size", "dp-size": "data-parallel-size", "pp-size": "pipeline-parallel-size",
        "pp": "pipeline-parallel-size", "ep": "expert-parallel-size", "ep-size": "expert-parallel-size",
        "mem-fraction-static": "gpu-memory-utilization", "max-running-requests": "max-num-seqs",
        "chunked-prefill-size": "max-num-batched-tokens", "context-length": "max-model-len", "page-size": "block-size",
        "disable-radix-cache": "no-enable-prefix-caching", "disable-cuda-graph": "enforce-eager",
        "disaggregation-transfer-backend": "sglang-backend",
    },
    "trtllm": {
        "model-path": "model", "tp-size": "tensor-parallel-size", "pp-size": "pipeline-parallel-size",
        "ep-size": "expert-parallel-size", "max-batch-size": "max-num-seqs", "max-num-tokens": "max-num-batched-tokens",
        "max-seq-len": "max-model-len", "kv-cache-free-gpu-memory-fraction": "free-gpu-memory-fraction",
    },
    "dynamo": {"model-path": "model"},
    "kserve": {"model-id": "model", "model-name": "served-model-name", "model-dir": "model"},
}  # fmt: skip
# Counts of GPUs and copies: the importers read these themselves.
COUNTS = {
    "tensor-parallel-size", "data-parallel-size", "pipeline-parallel-size", "data-parallel-size-local",
    "prefill-context-parallel-size", "decode-context-parallel-size", "expert-parallel-size",
}  # fmt: skip
STRUCTURE = COUNTS | {
    "model", "kv-transfer-config", "served-model-name", "is-prefill-worker", "is-decode-worker", "disaggregation-mode",
    "headless", "node-rank", "data-parallel-rank", "data-parallel-start-rank", "data-parallel-hybrid-lb",
    "data-parallel-external-lb", "data-parallel-multi-port-external-lb", "enable-expert-parallel", "hf-overrides",
    "rope-scaling", "rope-theta", "rope-parameters", "kv-offloading-size", "kv-offloading-backend", "quantization",
    "kv-cache-dtype", "runner", "nnodes", "task", "config", "load-format", "connector", "port",
    "disable-hybrid-kv-cache-manager", "enable-dp-attention", "extra-llm-api-options", "extra-engine-args",
}  # fmt: skip
SILENT = "says nothing about speed"
ALIKE = 0.89  # of difflib's ratio: `max-model-length` is one slip, `schedule-policy` is SGLang's own
_SILENT = re.compile(
    r"""host|port|uds|.*-port|.*address.*|master-.*|api-.*|chat-template.*|.*-chat-template.*|download-dir|seed|tokenizer.*
    |revision|code-revision|trust-.*|(?:disable|enable|log|logging|max-log)-?log.*|.*log(?:s|ging|-level|-config|-len).*
    |.*uvicorn.*|enable-auto-tool-choice|tool-.*|reasoning-.*|.*-reasoning.*|enable-prompt-tokens-details|return-.*
    |allow.*|ssl-.*|root-path|middleware|enable-ssl.*|disable-fastapi-docs|h11-.*|response-role|otlp.*|collect-.*
    |show-hidden.*|.*metrics.*|structured-outputs-config|guided-.*|generation-config|override-generation-config
    |limit-mm-.*|mm-.*|media-.*|language-model-only|skip-mm.*|interleave-mm.*|enable-mm.*|video-.*|model-loader.*
    |safetensors-.*|ignore-patterns|use-tqdm.*|pt-load.*|hf-token|hf-config-path|config-format|tokenizer-mode|use-vllm-.*
    |distributed-executor-backend|distributed-timeout.*|worker-.*|prefix-caching-hash-algo|kv-events-config
    |exclude-tools.*|lora-modules-none|.*health.*|grpc|custom-encoder.*|profiler-config|shutdown-timeout|numa-.*
    |enable-sleep-mode|discovery-backend|request-plane|event-plane|endpoint|namespace|store-kv|component
    |enable-request-id.*|default-.*|max-logprobs|logprobs-mode|dyn-.*|backend|enable-multimodal|route-to-.*|name
    |skip-server-warmup|watchdog-timeout|device|schedule-conservativeness|data-parallel-backend|data-parallel-rpc.*
    |kv-cache-metrics.*|fail-on.*|renderer-.*|disaggregation-bootstrap.*|disaggregation-ib.*|publish-events-.*
    |sglang-backend|base-gpu-id|gpu-id-step|.*-ib-device|dist-init-.*|served-.*|hf-.*token|nccl-port|calculate-kv-scales""",
    re.X,
)
# What changes speed and has no counterpart, and what it is.
SLOWS: dict[str, str] = {
    r"speculative.*|spec-.*|num-speculative.*": "speculative decoding changes speed and is not modelled",
    r"enable-expert-parallel|expert-parallel-size": "expert parallelism is not modelled",
    r".*compil.*|.*cudagraph.*|.*cuda-graph.*|O\d?|optimization-level|performance-mode": (
        "how kernels are compiled and captured is not modelled; for no graphs at all there is engine.enforce_eager"
    ),
    r"cpu-offload.*|offload-.*|swap-space": "weights or swapped KV on the host; for KV see optimizations.decode",
    r".*lora.*": "adapters are not modelled",
    r"attention-.*|.*attn.*|moe-.*|mamba-.*|kernel-config|linear-backend|all2all-backend": (
        "the choice of kernels is the profile's"
    ),
    r".*eplb.*|.*dbo.*|ubatch.*": "expert balancing and overlapped batches are not modelled",
    r"scheduling-policy|scheduler-cls|.*interval|max-num-scheduled.*|max-num-active.*": (
        "scheduling is first come first served"
    ),
    r"max-num-queued.*": "see deployment.router.max_queue",
    r"free-gpu-memory-fraction": "of what weights leave free; engine.gpu_memory_utilization is a share of all memory",
    r"disable-custom-all-reduce": "all-reduces are the profile's",
}
# Method names of checkpoints: what they store the weights in, and None where only the checkpoint's own config says it.
QUANTISED: dict[str, str | None] = {
    "fp8": "fp8", "fbgemm_fp8": "fp8", "ptpc_fp8": "fp8", "w8a8_fp8": "fp8", "int8": "int8", "w8a8_int8": "int8",
    "int4": "int4", "awq": "int4", "awq_marlin": "int4", "gptq": "int4", "gptq_marlin": "int4", "auto-round": "int4",
    "bitsandbytes": "int4", "experts_int8": "int8", "mxfp4": None, "modelopt": None, "modelopt_fp4": None,
    "modelopt_mixed": None, "compressed-tensors": None, "gguf": None, "torchao": None, "nvfp4": None, "quark": None,
}  # fmt: skip


@lru_cache(maxsize=1)
def _lists() -> tuple[frozenset[str], ...]:
    """Options without a value, with several, with one."""
    text = (Path(__file__).parent / "vllm_flags.txt").read_text()
    return tuple(frozenset(part.split()) for part in text.partition("\n")[2].split("\n\n"))


@lru_cache(maxsize=1)
def _known() -> frozenset[str]:
    return frozenset().union(*_lists(), STRUCTURE)


def abbreviated(name: str) -> str:
    """The one option of vLLM that `name` begins, as its parser has it; else `name`."""
    if name in _known() or name in SHORT:
        return name
    fits = [known for known in _known() if known.startswith(name)]
    return fits[0] if len(fits) == 1 else name


def meant(name: str) -> str | None:
    """The option of vLLM that a misspelt one looks like; None for one that it has, or had, or never heard of."""
    close = [] if name in _known() else difflib.get_close_matches(name, sorted(_known()), 1, ALIKE)
    return close[0] if close else None


def takes_no_value(name: str) -> bool:
    return name in _lists()[0] or name.startswith("no-")


def takes_several(name: str) -> bool:
    return name in _lists()[1]


def is_silent(name: str) -> bool:
    return _SILENT.fullmatch(name) is not None


def slows(name: str) -> str | None:
    """Why an option matters that has no counterpart; None when it does not."""
    if is_silent(name):
        return None
    found = next((text for pattern, text in SLOWS.items() if re.fullmatch(pattern, name)), None)
    return found or "not an option that is modelled"
