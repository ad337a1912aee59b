"""Calibrate on CPU vLLM, serve loads that no fit has seen, each twice, and keep the runs as records.

    python benchmarks/validate_cpu.py                    about 20 minutes, unattended; writes benchmarks/recorded/cpu-*
    python benchmarks/validate_cpu.py --quick --out DIR  the same steps in a few minutes; its figures mean nothing
    planner validate --docs docs/validation.md           predict the records and write the tables

One aggregated engine, one prefill and one decode engine, and the latter over two wires (UCX_TLS from shared memory to
TCP). Each run's manifest holds the host's load average; on a busy host the errors are the host's, not the simulator's.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE / "gpu")]

from campaign import Campaign  # noqa: E402

from planner.run.tables import Run  # noqa: E402
from planner.validation.recorded import NUMBERED, small  # noqa: E402

Plan = dict[str, dict[str, Any]]
QUICK_REQUESTS = 5
QUICK_SECONDS = 6


def quick(plan: Plan) -> Plan:
    """Every part, load and repeat, with a few requests each."""
    return {
        name: part
        | {"calibrate": {"seconds": QUICK_SECONDS, "rounds": 1}, "least_s": 30}
        | {"loads": {key: load | {"requests": QUICK_REQUESTS} for key, load in part["loads"].items()}}
        for name, part in plan.items()
    }


def ship(part: dict[str, Any], source: Path, target: Path) -> bool:
    """Small copies of a part's whole runs, in place of those of an earlier campaign. False: there are too few."""
    folders = [path for path in sorted(source.iterdir()) if NUMBERED.fullmatch(path.name) and path.is_dir()]
    making = target.with_name(f".{target.name}")
    shutil.rmtree(making, ignore_errors=True)
    whole = {folder.name: run for folder in folders if not (run := Run.load(folder)).manifest["interrupted"]}
    if "calibration-1" not in whole or all(name.startswith("calibration") for name in whole):
        return False  # nothing that can be judged
    for name, run in whole.items():
        small(run).save(making / name)
    (making / "record.yaml").write_text(yaml.safe_dump(part["record"], sort_keys=False, width=120))
    shutil.rmtree(target, ignore_errors=True)
    making.rename(target)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="default: all of benchmarks/cpu.yaml")
    parser.add_argument("--quick", action="store_true", help="a rehearsal")
    parser.add_argument("--out", type=Path, default=HERE / "recorded")
    parser.add_argument("--deadline", type=float, default=1500.0, help="seconds from now on")
    options = parser.parse_args()
    if options.quick and options.out == HERE / "recorded":
        parser.error("--quick needs --out DIR: a rehearsal is no record")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    plan: Plan = yaml.safe_load((HERE / "cpu.yaml").read_text())
    unknown = [name for name in options.parts if name not in plan]
    if unknown:
        parser.error(f"unknown part {unknown[0]}; allowed: {', '.join(plan)}")
    chosen = {name: plan[name] for name in options.parts or plan}
    chosen = quick(chosen) if options.quick else chosen
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs", flush=True)
    raw = Path(tempfile.mkdtemp(prefix="validate-cpu-"))
    campaign = Campaign(chosen, raw, options.deadline)
    campaign.run()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, part in chosen.items():
        shipped = (raw / name / "calibration-1").is_dir() and ship(part, raw / name, options.out / name)
        print(options.out / name if shipped else f"{name}: not measured whole, no record", flush=True)
    print(f"everything that was measured: {raw}", flush=True)
    sys.exit(1 if campaign.failed else 0)


if __name__ == "__main__":
    main()
