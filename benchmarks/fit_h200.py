"""Fit the shipped H200 profile to recorded measurements, and predict the requests that it was not fitted on.

    python benchmarks/fit_h200.py            write the profile and the record; print the comparison
    python benchmarks/fit_h200.py --check    the same without writing

Fitted on the synchronous step table and on the first 80 requests of the served run; the last 80 are only predicted.
For comparison also from the steps alone and from the served requests alone. Prints Markdown.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from planner.backends import backend
from planner.calibration.cost_fits import HostFit, fit_host
from planner.calibration.fitting import LAW, Fitted, digits, fit_step, law_of, record
from planner.calibration.observations import from_steps, from_tokens, host_samples
from planner.engine.catalogue import hardware
from planner.engine.law import StepLaw, bounds
from planner.engine.model_config import load_model
from planner.engine.profile_file import HostLaw, Measured, ProfileFile, Source, Validity
from planner.engine.profiles import HOP_S, capture_sizes, dump_profile, from_file, roofline
from planner.engine.roof import Roof
from planner.engine.setup import Setup
from planner.run.tables import Run, frame
from planner.spec import Engine, dump, load
from planner.system.resolve import resolve
from planner.traffic.requests import Arrival, Request
from planner.validation.parity import compare

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "benchmarks" / "data" / "h200-llama-3.1-8b"
STEPS, SERVED = DATA / "steps_sync_inprocess.csv", DATA / "agg_3000_100_r4.jsonl.gz"
FITTED = 80  # requests of the served run that may be fitted on
NAME = "h200-llama-3.1-8b-tp1"
RECORD = ROOT / "benchmarks" / "recorded" / "h200-llama-3.1-8b"
SIZES = capture_sizes()


def step_rows() -> pd.DataFrame:
    """The step table as rows. Decode rows hold about ctx + 30 tokens a sequence (median of 20 steps); `batch` counts
    decodes, but prompts in rows of kind prefill_batch."""
    table = pd.read_csv(STEPS)
    prompts = table["kind"].str.startswith("prefill")
    each = table["prefill_tokens"] / np.where(prompts, table["batch"], 1)
    steps = pd.DataFrame(
        {
            "prefill_tokens": table["prefill_tokens"],
            "prefill_pairs": table["prefill_tokens"] * each / 2,
            "decode_seqs": np.where(prompts, 0, table["batch"]),
            "context_tokens": np.where(prompts, 0, table["batch"] * (table["ctx"] + 30 * (table["kind"] == "decode"))),
            "duration_s": table["ms_median"] / 1e3,
            "worker": "engine",
            "start_s": np.arange(len(table)) * 10.0,  # measured one by one
        }
    )
    rows = from_steps(steps, SIZES, synchronous=True)
    # What batches beyond 128 take more is here also the host's, which schedules between the steps: not told apart.
    return rows.assign(kind=table["kind"], decode_wide=0.0)


def served_lines(first: int, last: int) -> list[bytes]:
    with gzip.open(SERVED) as file:
        return file.read().splitlines(keepends=True)[first:last]


def served_run(first: int, last: int) -> Run:
    """Requests [first, last) of the served run as the tables of a live run."""
    lines = [json.loads(line) for line in served_lines(first, last)]
    times = [line["token_times"] for line in lines]
    count = len(lines)
    requests = frame(
        "requests",
        {
            "request_id": [line["i"] for line in lines],
            "session_id": [line["i"] for line in lines],
            "arrival_s": [line["sent"] for line in lines],
            "prompt_tokens": [line["isl"] for line in lines],
            "cached_tokens": [0] * count,
            "output_tokens": [line["usage"] for line in lines],
            "max_tokens": [line["osl"] for line in lines],
            "worker": ["aggregated-0"] * count,
            "decode_worker": ["aggregated-0"] * count,
            "first_token_s": [time[0] for time in times],
            "finish_s": [time[-1] for time in times],
            "finish_reason": ["length"] * count,
        },
    )
    tokens = frame(
        "tokens",
        {
            "request_id": [line["i"] for line, time in zip(lines, times, strict=True) for _ in time],
            "index": [index for time in times for index in range(len(time))],
            "time_s": [moment for time in times for moment in time],
        },
    )
    sources = [slice_hash(first, last)] + ([slice_hash(0, FITTED)] if first < FITTED else [])
    manifest = {"provenance": "measured", "gpus": 1, "spec": {"name": "agg_3000_100_r4"}, "sources": sources}
    return Run(requests, frame("steps"), frame("samples"), frame("transfers"), tokens, manifest)


def slice_hash(first: int, last: int) -> str:
    return hashlib.sha256(b"".join(served_lines(first, last))).hexdigest()


def fit(what: str) -> tuple[Fitted, HostFit | None]:
    """Fit on `steps`, `served` (the first requests) or `both`."""
    setup = Setup.of(load_model("llama-3.1-8b"), hardware("h200"), Engine())
    bound = bounds(Roof(setup))
    if what == "steps":
        return fit_step(step_rows(), bound=bound), None
    run = served_run(0, FITTED)
    served = from_tokens(run.requests, run.tokens, SIZES)
    plain = served.drop(columns="request_id")
    if what == "both":
        fitted = fit_step(pd.concat([step_rows(), plain], ignore_index=True), bound=bound)
    else:
        prior = roofline(setup).file
        assert prior is not None
        fitted = fit_step(plain, prior=prior.step, bound=bound)
    prompts, seconds = host_samples(run.requests, served, fitted.values)
    return fitted, fit_host(np.array(prompts), np.array(seconds))


def profile(what: str) -> ProfileFile:
    """The profile of a fit, with everything that says where it comes from."""
    fitted, host = fit(what)
    table = Source(what="steps_sync_inprocess.csv", sha256=hashlib.sha256(STEPS.read_bytes()).hexdigest())
    served = Source(what=f"agg_3000_100_r4.jsonl.gz, lines 1 to {FITTED}, unpacked", sha256=slice_hash(0, FITTED))
    law = {name: digits(value) for name, value in law_of(fitted).model_dump().items()}
    notes = ["hop_s is an estimate: no P/D pair was measured here"]
    if what != "steps":
        notes.append(
            "served decode steps saw batches of 1 to 11; "
            "larger ones follow the synchronous table less its host overhead"
        )
    if what == "both":
        notes.append(
            "one step of several long prompts took 6 % longer in process than the law says; single ones did not"
        )
    if what != "steps":
        notes.append(
            f"host time from {host.samples} prompts of 3000 tokens, +-{host.request_error_s * 1e3:.2f} ms"
            if host
            else ""
        )
        notes.append(
            "shorter prompts were not served: their share of the host time and the prefill floor are less sure"
        )
    method = "relative residuals, soft_l1; covariance of an M-estimator"
    if what != "served":
        method += f"; synchronous rows carry {fitted.values['sync_s'] * 1e3:.2f} ms a step that serving hides"
    return ProfileFile(
        name=NAME,
        provenance="calibrated",
        model="llama-3.1-8b",
        hardware="h200",
        gpu_memory_utilization=0.92,
        kv_cache_tokens=914_304 if what == "steps" else 919_824,
        measured=Measured(
            gpu="NVIDIA H200",
            driver="580.159.04",
            vllm="0.25.1",
            torch="2.11.0+cu130",
            date="2026-11-23",
            samples=fitted.rows,
            how={
                "steps": "in process",
                "served": "served",
                "both": "steps in process for the shape, served for the level",
            }[what],
        ),
        step=StepLaw(**law),
        host=HostLaw(request_s=digits(host.request_s), hop_s=HOP_S) if host else HostLaw(),
        validity=Validity(batch=(1, 256), context=(1, 16_414), prefill_tokens=(1, 16_384)),
        fit=record(fitted, method, host.errors if host else None),
        fitted_on={"steps": (table,), "served": (served,), "both": (table, served)}[what],
        notes=tuple(notes),
    )


@dataclass(frozen=True)
class Recorded:
    """The recorded requests, sent at the recorded times."""

    arrivals: tuple[Arrival, ...]
    expected_requests: int

    def start(self) -> list[Arrival]:
        return list(self.arrivals)

    def finished(self, request: Request, time_s: float) -> list[Arrival]:
        return []


def recorded() -> Recorded:
    table = served_run(0, 160).requests
    arrivals = []
    for row in table.itertuples():
        number, prompt, output = int(row.request_id), int(row.prompt_tokens), int(row.output_tokens)
        request = Request(number, number, prompt, output, output, ((number, prompt),), 0, -1 - number)
        arrivals.append(Arrival(float(row.arrival_s), request))
    return Recorded(tuple(arrivals), len(arrivals))


def simulated(file: ProfileFile) -> Run:
    """All 160 requests on one engine with this profile, prefix caching off as in the recording."""
    spec = load(None, ["deployment.mode=aggregated", "engine.enable_prefix_caching=false", f"profile={NAME}"])
    system = resolve(spec)
    pool = replace(system.pools[0], profile=from_file(file))
    run = backend("simulate").run(replace(system, pools=(pool,)), recorded())
    return replace(run, manifest=run.manifest | {"fitted_on": [source.sha256 for source in file.fitted_on]})


def part(run: Run, first: int, last: int) -> Run:
    """Requests [first, last) of a run, by id."""
    requests = run.requests[run.requests["request_id"].between(first, last - 1)]
    return replace(run, requests=requests, steps=run.steps.iloc[:0])


COLUMNS = [(metric, name) for metric in ("ttft", "tpot", "e2e") for name in ("p50", "p90", "p99")]
COLUMNS.append(("throughput", "requests"))


def comparison() -> str:
    """Errors in percent of each fit on both halves of the served run, as Markdown."""
    head = "| fitted on | requests | label | " + " | ".join(f"{metric} {name}" for metric, name in COLUMNS) + " |"
    lines = [head, "|" + "---|" * (len(COLUMNS) + 3)]
    for what in ("steps", "served", "both"):
        run = simulated(profile(what))
        for first, last in ((0, FITTED), (FITTED, 160)):
            found = compare(part(run, first, last), served_run(first, last))
            assert found.tokens.agrees, found.tokens.sentence()
            errors = " | ".join(f"{100 * found.error(*column).error:+.1f}" for column in COLUMNS)
            lines.append(f"| {what} | {first + 1}-{last} | {found.label} | {errors} |")
    return "\n".join(lines)


def parameters() -> str:
    """The parameters of each fit with their standard errors, in microseconds, as Markdown."""
    fits = {what: fit(what) for what in ("steps", "served", "both")}
    lines = ["| parameter, us | " + " | ".join(fits) + " |", "|---|---|---|---|"]
    for name in (*LAW, "sync_s"):
        cells = []
        for fitted, _ in fits.values():
            error = fitted.standard_errors.get(name)
            known = "bound" if name in fitted.raised else "-" if error is None else f"{1e6 * error:.2g}"
            cells.append(f"{1e6 * fitted.values[name]:.5g} +- {known}" if name in LAW or error else "-")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    hosts = [
        f"{1e6 * host.request_s:.0f} +- {1e6 * host.request_error_s:.0f}" if host else "-" for _, host in fits.values()
    ]
    return "\n".join([*lines, "| host request_s | " + " | ".join(hosts) + " |"])


def write_record() -> None:
    """The served run and the three profiles as a record that `planner validate` reads."""
    shutil.rmtree(RECORD, ignore_errors=True)
    for what in ("steps", "served", "both"):
        path = RECORD / f"profile-{what}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dump_profile(profile(what)))
    run = served_run(0, 160)
    halves = {f"{first}-{last - 1}": (first, last) for first, last in ((0, FITTED), (FITTED, 160))}
    spec = load(None, ["name=agg_3000_100_r4", "deployment.mode=aggregated", "engine.enable_prefix_caching=false"])
    manifest = run.manifest | {
        "spec": spec.model_dump(mode="json", by_alias=True),
        "spec_yaml": dump(spec),
        "versions": {"vllm": "0.25.1", "torch": "2.11.0+cu130", "gpu": "NVIDIA H200", "driver": "580.159.04"},
        "slices": {key: [slice_hash(*half)] for key, half in halves.items()},
        "warnings": [],
    }
    replace(run, tokens=frame("tokens"), manifest=manifest).save(RECORD / "agg-3000-100-1")
    reading = {
        "title": "One H200, Llama-3.1-8B: three fits of one served run",
        "replay": True,
        "slices": {f"requests {first + 1}-{last}": [first, last - 1] for first, last in halves.values()},
        "notes": [
            "Recorded with a client of its own: Poisson arrivals at 4 a second, 3000 prompt and 100 output tokens, "
            "prefix caching off. Fitted on steps alone, on the first half of the served run alone, and on both.",
            "In-process steps schedule synchronously: each carries time that a server's asynchronous scheduling hides. "
            "Steps alone cannot tell it from the law, so their fit predicts a TPOT about 40 % too long, and they know "
            "nothing of the host's time for a request. The served run shows both, but only at one prompt length "
            "and batches up to 11. Fitted on both, the served run sets the level and the steps the shape beyond it.",
        ],
    }
    (RECORD / "record.yaml").write_text(yaml.safe_dump(reading, sort_keys=False, width=120))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="do not write the profile")
    arguments = parser.parse_args()
    shipped = profile("both")
    text = dump_profile(shipped)
    print(f"{parameters()}\n\nErrors in percent, predicted / measured - 1:\n\n{comparison()}")
    if not arguments.check:
        write_record()
        path = ROOT / "configs" / "profiles" / f"{NAME}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
