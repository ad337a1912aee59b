"""Asks AIConfigurator 0.12 for the rows of `planner validate --public`, and puts both side by side.

    python -m venv /tmp/aic && /tmp/aic/bin/pip install aiconfigurator==0.12.0
    /tmp/aic/bin/python benchmarks/aiconfigurator_rows.py ask configs/public/silicon_fit.csv aic.csv
    python benchmarks/aiconfigurator_rows.py compare aic.csv

`ask` runs in its environment, which holds nothing of ours: one estimate a row of vLLM's aggregated ones, with the row's
parallel sizes, lengths (0.9 of the stated ones, their mean) and requests in flight as its batch. `compare` prints the
table of benchmarks/peers.md over rows that both answer.
"""

from __future__ import annotations

import argparse
import csv
import logging
import math
import os
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from zlib import crc32

MEAN_LENGTH = 0.9
MODELS = {"meta-llama/Llama-3.1-70B": "meta-llama/Meta-Llama-3.1-70B"}  # names that it knows without a download
OWN = (("gpt-oss", "fp4"), ("Kimi", "int4"), ("MiniMax", "fp8"))  # checkpoints as their makers publish them


def number(row: dict[str, str], name: str) -> int:
    return max(1, round(float(row[name] or 1)))


def estimate(row: dict[str, str]) -> tuple[str, float, float, str]:
    """(id, TTFT ms, TPOT ms, why there is none)."""
    from aiconfigurator.cli.api import cli_estimate

    logging.disable(logging.CRITICAL)
    told = re.search(r"concurrency=(\d+)", row["silicon_data_source"])
    asked: dict[str, Any] = {
        "mode": "agg", "backend_name": row["backend"],
        "isl": round(MEAN_LENGTH * float(row["isl"])), "osl": round(MEAN_LENGTH * float(row["osl"])),
        "batch_size": int(told[1]) if told else number(row, "batch_size"),
        "tp_size": number(row, "tp_size"), "moe_tp_size": number(row, "moe_tp_size"),
        "moe_ep_size": min(number(row, "moe_ep_size"), number(row, "tp_size")),
    }  # fmt: skip
    if not any(name in row["model_path"] and row["precision"] == kind for name, kind in OWN):
        asked |= {name: row[name] or None for name in ("gemm_quant_mode", "moe_quant_mode")}
    if "MiniMax" in row["model_path"] and row["precision"] == "fp8" and asked["tp_size"] == 8:  # scales do not split
        asked |= {"moe_tp_size": 1, "moe_ep_size": 8}
    if "Llama" in row["model_path"]:
        asked |= dict.fromkeys(("moe_tp_size", "moe_ep_size", "moe_quant_mode"))
    try:
        found = cli_estimate(MODELS.get(row["model_path"], row["model_path"]), row["system"], **asked)
    except Exception as error:  # noqa: BLE001 - it refuses rows with exceptions of many types
        return row["id"], math.nan, math.nan, f"{type(error).__name__}: {error}".split("\n")[0][:160]
    return row["id"], float(found.ttft), float(found.tpot), ""


def ask(rows: Path, out: Path, every: int) -> None:
    with rows.open() as file:
        asked = [
            row
            for row in csv.DictReader(file)
            if row["backend"] == "vllm" and row["mode"] == "agg" and number(row, "attention_dp_size") == 1
        ]
    asked = sorted(asked, key=lambda row: crc32(row["id"].encode()))[::every]  # so that a part is a sample of all
    with out.open("w") as file, ProcessPoolExecutor(min(2, os.cpu_count() or 1)) as executor:
        writer = csv.writer(file)
        writer.writerow(("id", "ttft_ms", "tpot_ms", "reason"))
        for answer in executor.map(estimate, asked, chunksize=1):
            writer.writerow(answer)
            file.flush()


def compare(answers: Path) -> None:
    from planner.validation.public import Errors, Predicted, covered, predict_all, read_rows, shipped_rows

    with answers.open() as file:
        theirs = {row["id"]: row for row in csv.DictReader(file)}
    rows = [row for row in read_rows(shipped_rows()) if theirs.get(row.name, {}).get("tpot_ms") not in (None, "nan")]
    groups: dict[tuple[str, str], list[Predicted]] = {}
    for one in covered(predict_all(rows, min(2, os.cpu_count() or 1), lambda: None)):
        for key in (("all", ""), (one.row.model.rpartition("/")[2], one.row.gpu)):
            groups.setdefault(key, []).append(one)
    print("| model | GPU | rows | TTFT: ours, bias | mean abs. | theirs, bias | mean abs. | TPOT: ours | | theirs | |")
    print("|" + "---|" * 11)
    for (model, gpu), those in sorted(groups.items(), key=lambda item: (item[0][0] != "all", item[0])):
        cells = [model, gpu, str(len(those))]
        for name in ("ttft_ms", "tpot_ms"):
            ours = [getattr(one, name) / getattr(one.row, name) - 1 for one in those]
            its = [float(theirs[one.row.name][name]) / getattr(one.row, name) - 1 for one in those]
            for errors in map(Errors.of, (ours, its)):
                cells += [f"{100 * errors.bias:+.1f}", f"{100 * errors.mean_abs:.1f}"]
        print("| " + " | ".join(cells) + " |")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = options.add_subparsers(dest="kind", required=True)
    asking = kinds.add_parser("ask")
    asking.add_argument("rows", type=Path)
    asking.add_argument("out", type=Path)
    asking.add_argument("--every", type=int, default=1, help="ask for one row of so many: an estimate takes seconds")
    kinds.add_parser("compare").add_argument("answers", type=Path)
    asked = options.parse_args()
    if asked.kind == "ask":
        ask(asked.rows, asked.out, asked.every)
    else:
        compare(asked.answers)


if __name__ == "__main__":
    main()
