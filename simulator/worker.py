"""One vLLM engine: scheduler, KV cache and clock, advanced lazily between outside events.

Contract used by simulator/cluster.py (the cluster owns time; a worker never runs past what it was told):

- `submit(sequence, now)`: the sequence enters the waiting queue at `now` (not before the last `advance`).
- `next_event_s()`: when the worker's next outcome happens if nothing else is submitted; inf when idle.
- `advance(now)`: run all steps that end at or before `now`; returns the outcomes in time order.
- `kv_arrived(sequence, now)`: the remote KV of a `remote` sequence has been read.
- `release(sequence, now)`: frees the blocks of a `prefill_only` sequence that were held for the decode worker.
- `cached_tokens(request)`: prompt tokens (whole blocks, at most prompt - 1) that a prefix lookup would hit now.
- `load`: a `planner.routing.WorkerLoad`, kept current.

Outcomes are `(time_s, kind, sequence)`: ADMITTED (remote only: blocks are allocated, the read may start),
PREFILLED (the step that ends the prompt, and samples the first token), FINISHED (last token sampled), PREEMPTED.
"""
