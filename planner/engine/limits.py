"""What vLLM's scheduler obeys on given hardware: its defaults (server, version 0.32) and how many KV blocks fit."""

from __future__ import annotations

from planner.engine.engine_limits import EngineLimits
from planner.engine.memory import GIB, memory
from planner.engine.model_shape import ModelShape
from planner.engine.parallel import Parallel
from planner.engine.setup import Setup
from planner.messages import Message, message
from planner.spec import SpecError

# Tokens: every attention backend that vLLM 0.32 has for CUDA takes blocks of a multiple of it, some of a larger one,
# in whose stead vLLM then takes another backend. Its CPU kernels only prefer theirs; AMD's MLA takes any.
KERNEL_BLOCK = 16


def batch_defaults(setup: Setup) -> tuple[int, int]:
    """(max_num_batched_tokens, max_num_seqs) of `vllm serve`."""
    hardware, tp = setup.hardware, setup.tp
    if hardware.kind == "cpu":
        return 2048 * tp, 128 * tp
    memory = hardware.usable_bytes
    if memory >= 160 * GIB:
        return 16384, 1024
    if memory >= 70 * GIB and "a100" not in hardware.name.lower():
        return 8192, 1024
    return 2048, 256


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def divides(model: ModelShape, parallel: Parallel) -> bool:
    """Whether vLLM can split the model so."""
    return uneven(model, parallel) is None


def uneven(model: ModelShape, parallel: Parallel) -> str | None:
    """Why vLLM cannot split the model so; None when it can.

    Heads are split, KV heads evenly split or evenly replicated, and scales stay with the weights that share them.
    """
    tp = parallel.tp
    kept = {layer.heads for layer in model.kv if layer.heads}
    split = all(heads % tp == 0 or tp % heads == 0 for heads in kept)
    whole_experts = parallel.ep > 1
    width = 0 if whole_experts else model.expert_intermediate
    if width % parallel.gpus and not width % tp:
        return message("{gpus} GPUs do not divide {model}'s expert width {width}", parallel.gpus, model.name, width)
    if model.heads % tp or not split or model.intermediate % tp or width % tp:
        return message(
            "{tp} does not divide {model}'s {heads} heads, {kv_heads} KV heads and intermediate size {width}",
            tp,
            model.name,
            model.heads,
            model.kv_heads,
            model.intermediate,
        )
    stored = model.checkpoint
    if stored is None or stored.routed_only:
        return None
    plain, bits = 8.0 * model.dtype_bytes, model.bits
    inputs: dict[Message, tuple[int, int]] = {}  # width and the GPUs that share it
    if bits.mlp != plain and model.parameters.mlp:
        inputs[message("intermediate size")] = model.intermediate, tp
    if bits.routed != plain and model.experts and not whole_experts:
        inputs[message("expert width")] = model.expert_intermediate, parallel.gpus
    attention = bits.attention != plain and not model.latent_dim
    if attention:
        inputs[message("attention width")] = model.heads * model.head_dim, tp
    outputs = dict(inputs)
    if attention:
        outputs[message("K and V width")] = (
            max(tp, model.kv_heads) * model.head_dim,
            tp,
        )  # replicated beyond the KV heads
    checks = [(inputs, stored.group, message("groups"))] if stored.group else []
    if stored.block is not None and parallel.gpus > 1:  # vLLM pads the last block of a width that is not split
        checks += [(outputs, stored.block[0], message("blocks")), (inputs, stored.block[1], message("blocks"))]
    for widths, size, what in checks:
        for name, (width, shares) in widths.items():
            if width % (shares * size) and shares > 1:
                return message(
                    "{tp} leaves {part} of {model}'s {name} {width} to a GPU, no multiple of its quantised {what} of "
                    "{size}",
                    shares, width // shares, model.name, name, width, what, size,
                )  # fmt: skip
    return None


def _refuse_memory(setup: Setup, budget: int, seqs: int, where: str, most: int) -> SpecError:
    """The model, or one block of KV, does not fit."""
    model, hardware, tp = setup.model, setup.hardware, setup.tp
    found = memory(setup, budget, seqs)
    there, needed = found.usable, found.usable - found.kv
    block = setup.kv_bytes_per_token
    fitting = [
        larger.tp
        for larger in (setup.at(size, setup.parallel.dp) for size in range(tp + 1, most + 1))
        if divides(model, larger.parallel) and memory(larger, budget, seqs).kv > 1024 * block
    ]
    remedy = (
        message("tp {tp} or more", fitting[0]) if fitting else message("a smaller model, quantization or larger GPUs")
    )
    return SpecError(
        "{where}.tp: {model} does not fit at tp {tp}: {needed} of weights and working memory a GPU, {usable} "
        "usable on {gpu}; allowed: {remedy}",
        where,
        model.name,
        tp,
        _gb(needed),
        _gb(there),
        hardware.name,
        remedy,
    )


def kv_blocks(setup: Setup, measured: int | None, batch: tuple[int, int, int], where: str, most: int) -> int:
    """vLLM's num_gpu_blocks (null block counted): the override, what vLLM reported, or an estimate.

    `measured`: KV tokens vLLM reported for this engine with its default batch sizes. `batch` is (budget, sequences,
    block size); `most` is the largest tp of a node, for the remedy. Raises SpecError.
    """
    engine, (budget, seqs, block_size) = setup.options, batch
    block_bytes = block_size * setup.kv_bytes_per_token
    if engine.num_gpu_blocks_override is not None:
        return engine.num_gpu_blocks_override
    if engine.kv_cache_memory_bytes is not None:
        return int(engine.kv_cache_memory_bytes // block_bytes)
    blocks = int(memory(setup, budget, seqs).kv // block_bytes)
    if blocks < 2:
        raise _refuse_memory(setup, budget, seqs, where, most)
    if measured is not None and (budget, seqs) == batch_defaults(setup):
        return measured // block_size
    return blocks


def limits(setup: Setup, measured: int | None, where: str, most: int) -> EngineLimits:
    """The scheduler's limits of one pool; `where` is its key. Raises SpecError."""
    model, engine = setup.model, setup.options
    budget, seqs, block_size = batch_sizes(setup)
    if setup.hardware.compute_capability is not None and block_size % KERNEL_BLOCK:
        raise SpecError(
            "engine.block_size: {size} is no multiple of {kernel}, as vLLM's attention on {gpu} needs; allowed: {near}",
            block_size,
            KERNEL_BLOCK,
            setup.hardware.name,
            -(-block_size // KERNEL_BLOCK) * KERNEL_BLOCK,
        )
    if budget < seqs:
        raise SpecError(
            "engine.max_num_batched_tokens: {budget} is below max_num_seqs {seqs}; allowed: at least max_num_seqs",
            budget,
            seqs,
        )
    total = kv_blocks(setup, measured, (budget, seqs, block_size), where, most)
    usable = total - 1
    if usable < 1:
        key = "num_gpu_blocks_override" if engine.num_gpu_blocks_override is not None else "kv_cache_memory_bytes"
        raise SpecError(
            "engine.{key}: {value} gives {total} KV blocks, one of them vLLM's own; allowed: 2 or more",
            key,
            getattr(engine, key),
            total,
        )
    room = usable * block_size
    positions = engine.max_position_embeddings or model.max_position
    longest = engine.max_model_len or min(positions, room)
    if longest > positions:
        raise SpecError(
            "engine.max_model_len: {longest} is beyond {name}'s {most} positions; allowed: up to {most}",
            longest,
            model.name,
            positions,
        )
    if longest > room:
        raise SpecError(
            "engine.max_model_len: one request of {longest} tokens does not fit the KV cache of {room} "
            "tokens ({usable} blocks of {block_size}, {where}); allowed: up to {room}, or more KV memory",
            longest,
            room,
            usable,
            block_size,
            where,
        )
    if not engine.enable_chunked_prefill and budget < longest:
        raise SpecError(
            "engine.max_num_batched_tokens: {budget} is below max_model_len {longest} without chunked "
            "prefill; allowed: at least {longest}, or enable_chunked_prefill: true",
            budget,
            longest,
        )
    asynchronous = engine.async_scheduling
    return EngineLimits(
        max_num_batched_tokens=budget,
        max_num_seqs=seqs,
        block_size=block_size,
        kv_blocks=usable,
        max_model_len=longest,
        prefix_caching=engine.enable_prefix_caching,
        chunked_prefill=engine.enable_chunked_prefill,
        prefill_first=engine.scheduler == "prefill_first",
        async_scheduling=setup.hardware.kind == "gpu" if asynchronous is None else asynchronous,
        long_prefill_token_threshold=engine.long_prefill_token_threshold,
        reserve_full_prompt=engine.scheduler_reserve_full_isl,
        watermark_blocks=int(engine.watermark * total),
    )


def batch_sizes(setup: Setup) -> tuple[int, int, int]:
    """(max_num_batched_tokens, max_num_seqs, block_size): the engine's own, else vLLM's defaults."""
    engine = setup.options
    budget, seqs = batch_defaults(setup)
    longest = engine.max_model_len or engine.max_position_embeddings or setup.model.max_position
    if not engine.enable_chunked_prefill:
        budget = max(budget, longest)  # a whole prompt must fit one step
    budget = engine.max_num_batched_tokens or min(budget, (engine.max_num_seqs or seqs) * longest)
    seqs = engine.max_num_seqs or min(seqs, budget)
    return budget, seqs, engine.block_size or (128 if setup.hardware.kind == "cpu" else 16)
