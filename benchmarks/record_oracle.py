"""Record what vLLM's own scheduler decides, as the oracle of simulator/batching.py.

vLLM's `Scheduler` (or `AsyncScheduler`) and KV cache manager run without a model, on a virtual clock: each step takes
what the case's linear law says. Needs vLLM 0.32 and no GPU:

    python benchmarks/record_oracle.py tests/data/oracle                    writes one compressed trace for each case
    python benchmarks/record_oracle.py --fuzz 300 [--seed 0] [--kind KIND]  random cases against the simulator
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import sys
import tempfile
from collections import deque
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch  # noqa: E402
from vllm import SamplingParams  # noqa: E402
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1  # noqa: E402
from vllm.engine.arg_utils import EngineArgs  # noqa: E402
from vllm.utils.hashing import get_hash_fn_by_name  # noqa: E402
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash  # noqa: E402
from vllm.v1.core.sched.async_scheduler import AsyncScheduler  # noqa: E402
from vllm.v1.core.sched.scheduler import Scheduler  # noqa: E402
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec  # noqa: E402
from vllm.v1.outputs import KVConnectorOutput, ModelRunnerOutput  # noqa: E402
from vllm.v1.request import Request as EngineRequest  # noqa: E402
from vllm.v1.structured_output import StructuredOutputManager  # noqa: E402

from engine_cases import named_cases, random_case  # noqa: E402
from engine_replay import Case, Job, replay  # noqa: E402

STOP = 1  # the token id that ends a request before its max_tokens

MODEL = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 32000,
    "max_position_embeddings": 1 << 20, "torch_dtype": "float16",
}  # fmt: skip


def token(content: int, offset: int) -> int:
    """The token at `offset` of a segment: different wherever content or offset differ (30 bits of a hash)."""
    digest = hashlib.blake2b(f"{content}/{offset}".encode(), digest_size=4).digest()
    return 2 + int.from_bytes(digest, "big") // 4


class Connector(KVConnectorBase_V1):
    """The scheduler's half of a P/D connector that behaves as NIXL does, without transfers."""

    def __init__(self, modes: dict[str, str]) -> None:
        self.modes = modes
        self.admitted: dict[str, int] = {}  # tokens found in the local cache

    requires_kv_delivery = False

    def get_loaded_kv_cache_group_ids(self, request: Any) -> tuple[int, ...]:
        return ()

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int, bool]:
        if self.modes.get(request.request_id) != "remote":
            return 0, False
        return request.num_prompt_tokens - num_computed_tokens, True

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        if self.modes.get(request.request_id) == "remote":
            self.modes[request.request_id] = "full"  # read once; computed again after a preemption
            self.admitted[request.request_id] = request.num_prompt_tokens - num_external_tokens

    def request_finished(self, request: Any, block_ids: Any) -> tuple[bool, None]:
        return self.modes.get(request.request_id) == "prefill_only", None

    def build_connector_meta(self, scheduler_output: Any) -> None:
        return None

    start_load_kv = wait_for_layer_load = save_kv_layer = wait_for_save = None  # the worker's half


class Oracle:
    """One vLLM scheduler and what it decided."""

    def __init__(self, case: Case, model: Path) -> None:
        limits = case.limits
        self.case = case
        self.config = EngineArgs(
            model=str(model), skip_tokenizer_init=True, enforce_eager=True, block_size=limits.block_size,
            max_num_seqs=limits.max_num_seqs, max_num_batched_tokens=limits.max_num_batched_tokens,
            max_model_len=limits.max_model_len, enable_prefix_caching=limits.prefix_caching,
            enable_chunked_prefill=limits.chunked_prefill,
            long_prefill_token_threshold=limits.long_prefill_token_threshold,
            scheduler_reserve_full_isl=limits.reserve_full_prompt,
        ).create_engine_config()  # fmt: skip
        self.config.cache_config.num_gpu_blocks = blocks = limits.kv_blocks + 1  # with the null block
        spec = FullAttentionSpec(block_size=limits.block_size, num_kv_heads=1, head_size=8, dtype=torch.float16)
        kind = AsyncScheduler if limits.async_scheduling else Scheduler
        self.scheduler = kind(
            self.config,
            KVCacheConfig(num_blocks=blocks, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["l0"], spec)]),
            StructuredOutputManager(self.config),
            block_size=limits.block_size,
            hash_block_size=limits.block_size,
            log_stats=False,
        )
        self.scheduler.kv_cache_manager.watermark_blocks = limits.watermark_blocks
        modes = {str(job.request.request_id): job.mode for job in case.jobs}
        self.connector = Connector(modes)
        self.producer = "prefill_only" in modes.values()
        if self.producer or "remote" in modes.values():
            self.scheduler.connector = self.connector
            self.scheduler.requires_kv_delivery = self.producer
            self.scheduler.defer_block_free = limits.async_scheduling and not self.producer
        hash_fn = get_hash_fn_by_name(self.config.cache_config.prefix_caching_hash_algo)
        init_none_hash(hash_fn)
        self.hasher = get_request_block_hasher(limits.block_size, hash_fn) if limits.prefix_caching else None
        self.jobs = {str(job.request.request_id): job for job in case.jobs}
        self.goal: dict[str, int] = {}  # tokens to compute at the latest admission
        self.cached: dict[str, int] = {}
        self.preempted: dict[str, int] = {}
        self.decisions: list[Any] = []
        self.ends: dict[int, tuple[float, int, int]] = {}
        self.arrived: list[str] = []
        self.released: list[str] = []

    def add(self, job: Job) -> None:
        request = job.request
        prompt = [token(content, offset) for content, size in request.segments for offset in range(size)]
        params = SamplingParams(
            temperature=0, max_tokens=1 if job.mode == "prefill_only" else request.max_tokens, ignore_eos=True,
            stop_token_ids=[STOP],
        )  # fmt: skip
        self.scheduler.add_request(
            EngineRequest(str(request.request_id), prompt, params, None, block_hasher=self.hasher)
        )

    def schedule(self) -> Any:
        """One decision, recorded. Returns (vLLM's output, the sampled tokens, its duration)."""
        scheduler = self.scheduler
        before = {rid: request.num_preemptions for rid, request in scheduler.requests.items()}
        out = scheduler.schedule()
        preempted = sum(request.num_preemptions - before[rid] for rid, request in scheduler.requests.items())
        cached = out.scheduled_cached_reqs
        fresh = {new.req_id: new.num_computed_tokens for new in out.scheduled_new_reqs}
        had = fresh | dict(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        chunks, batch, context, ids, sampled = [], 0, 0, [], []
        for rid, tokens in out.num_scheduled_tokens.items():
            request, done = scheduler.requests[rid], had[rid]
            if rid in fresh or rid in cached.resumed_req_ids:
                self.goal[rid] = request.num_tokens
                if request.num_preemptions == 0 and self.jobs[rid].mode != "remote":
                    self.cached[rid] = done
            if done < self.goal[rid]:
                chunks.append((tokens, done))
            else:
                batch, context = batch + 1, context + done
            ids.append(rid)
            sampled.append([] if done + tokens < self.goal[rid] else [rid])
        if ids:
            waiting = sum(scheduler.get_request_counts()[1:])
            free = scheduler.kv_cache_manager.block_pool.get_num_free_blocks()
            self.decisions.append((tuple(chunks), batch, context, len(scheduler.running), waiting, free, preempted))
        return out, ids, sampled, self.case.law.duration(chunks, batch, context) if ids else 0.0

    def update(self, out: Any, ids: list[str], sampled: list[list[str]], now: float) -> list[str]:
        """Hand the step's tokens in; returns who finished."""
        tokens = []
        for rid, names in zip(ids, sampled, strict=True):
            request = self.scheduler.requests.get(rid)
            if not names or request is None or request.is_finished():
                tokens.append([7] if names else [])
                continue
            job, at = self.jobs[rid].request, request.num_output_tokens
            last = at + 1 == job.output_tokens and job.output_tokens < job.max_tokens
            tokens.append([STOP if last else token(job.output_content, at)])
        transfer = KVConnectorOutput(finished_recving=self.arrived, finished_sending=self.released)
        self.arrived, self.released = [], []
        preempted = {rid: request.num_preemptions for rid, request in self.scheduler.requests.items()}
        result = self.scheduler.update_from_output(
            out,
            ModelRunnerOutput(
                req_ids=ids, req_id_to_index={rid: at for at, rid in enumerate(ids)}, sampled_token_ids=tokens,
                kv_connector_output=transfer if self.scheduler.connector else None,
            ),
        )  # fmt: skip
        done = [o.request_id for outs in result.values() for o in outs.outputs if o.finish_reason is not None]
        for rid in done:
            self.ends[int(rid)] = (now, self.cached.get(rid, 0), preempted[rid])
        return done


def record(case: Case, model: Path) -> Case:
    """The case with what vLLM's scheduler decides and when each request ends."""
    oracle = Oracle(case, model)
    scheduler, deep = oracle.scheduler, 2 if case.limits.async_scheduling else 1
    outside = sorted((job.time_s, index, "submit", job) for index, job in enumerate(case.jobs))
    flying: deque[tuple[Any, list[str], list[list[str]], float]] = deque()
    now = last_end = 0.0
    idle = turns = 0

    def later(rid: str, what: str) -> None:
        job = oracle.jobs[rid]
        outside.append((now + job.transfer_s, len(outside) + 10**6, what, job))
        outside.sort(key=lambda event: event[:2])

    while len(oracle.ends) < len(case.jobs) or outside or flying:
        while outside and outside[0][0] <= now:
            _, _, what, job = outside.pop(0)
            if what == "submit":
                oracle.add(job)
            elif what == "arrived":
                oracle.arrived.append(str(job.request.request_id))
            else:
                oracle.released.append(str(job.request.request_id))
        if (oracle.arrived or oracle.released) and scheduler.connector:  # noticed between two steps
            transfer = KVConnectorOutput(finished_recving=oracle.arrived, finished_sending=oracle.released)
            oracle.arrived, oracle.released = [], []
            scheduler._update_from_kv_xfer_finished(transfer)
        if (turns := turns + 1) > 200_000:
            raise RuntimeError(f"{case.name}: does not end")
        busy = any(entry[1] for entry in flying)
        if scheduler.has_requests() or scheduler.has_unfinished_requests():
            out, ids, sampled, duration = oracle.schedule()
            for rid, cached in oracle.connector.admitted.items():
                oracle.cached[rid] = cached
                later(rid, "arrived")
            oracle.connector.admitted.clear()
            end = max(now, last_end) + duration if ids else max(now, last_end)
            last_end = end
            flying.append((out, ids, sampled, end))
            if not ids and not busy:  # an empty step takes no time
                out, ids, sampled, end = flying.popleft()
                oracle.update(out, ids, sampled, now)
                idle = idle + 1
                if idle > 2:
                    if not outside:
                        raise RuntimeError(f"{case.name}: nothing can run")
                    now = outside[0][0]
                    idle = 0
                continue
            idle = 0
            if len(flying) < deep:
                continue
        elif not flying:
            if outside:
                now = outside[0][0]
            continue
        out, ids, sampled, end = flying.popleft()
        now = max(now, end)
        for rid in oracle.update(out, ids, sampled, now):
            if oracle.jobs[rid].mode == "prefill_only":
                later(rid, "released")
    return dataclasses.replace(case, decisions=tuple(oracle.decisions), ends=oracle.ends)


def differences(case: Case) -> list[str]:
    """What the simulator does otherwise than the recording, first things first."""
    out = []
    again = replay(case)
    for index, (theirs, ours) in enumerate(zip(case.decisions, again.decisions, strict=False)):
        if theirs != ours:
            out.append(f"step {index}: vLLM {theirs} ours {ours}")
            break
    if len(case.decisions) != len(again.decisions):
        out.append(f"vLLM {len(case.decisions)} steps, ours {len(again.decisions)}")
    for key, (time_s, cached, preemptions) in case.ends.items():
        mine = again.ends[key]
        if abs(mine[0] - time_s) > 1e-9 or mine[1:] != (cached, preemptions):
            out.append(f"request {key}: vLLM {(time_s, cached, preemptions)} ours {mine}")
            break
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--fuzz", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", default="")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        model = Path(name)
        (model / "config.json").write_text(json.dumps(MODEL))
        if options.fuzz:
            kinds = (
                [options.kind]
                if options.kind
                else ["sync", "sync", "decode", "prefill", "async", "async-decode", "async-prefill"]
            )
            bad = steps = 0
            for seed in range(options.seed, options.seed + options.fuzz):
                case = record(random_case(seed, kinds[seed % len(kinds)]), model)
                steps += len(case.decisions)
                if faults := differences(case):
                    bad += 1
                    print(case.name, case.limits, *faults, sep="\n  ", flush=True)
            print(f"{options.fuzz} random cases, {steps} steps, {bad} cases differ")
            sys.exit(bad > 0)
        options.folder.mkdir(parents=True, exist_ok=True)
        for case in named_cases():
            case = record(case, model)
            case.save(options.folder / f"{case.name}.jsonl.gz")
            preempted = sum(decision[6] for decision in case.decisions)
            print(f"{case.name}: {len(case.decisions)} steps, {preempted} preemptions, {differences(case) or 'equal'}")


if __name__ == "__main__":
    main()
