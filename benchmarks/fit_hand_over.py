"""The figures of configs/links/nvlink_nixl.yaml, from a recorded calibration round of a pair that pulls.

    python benchmarks/fit_hand_over.py FOLDER/pair-pull/calibration-1

Only transfers that had the wires to themselves count: others wait for their neighbours' posts. With one block size the
bytes grow with the descriptors, so that bandwidth and microseconds a descriptor cannot be told apart by their times;
`--post-us` is vLLM's own figure, from its log lines about NIXL.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from planner.run.tables import Run
from planner.spec import parse
from planner.system.resolve import resolve


def fit(design: np.ndarray, seconds: np.ndarray, start: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Values and standard errors of least squares on logarithms, as noise of transfers multiplies."""
    found = least_squares(
        lambda x: np.log(design[:, 0] * x[0] + design[:, 1] * x[1] + design[:, 2]) - np.log(seconds),
        start, bounds=(1e-6, np.inf), loss="soft_l1", f_scale=0.1,
    )  # fmt: skip
    covariance = np.linalg.inv(found.jac.T @ found.jac) * float((found.fun**2).mean())
    return found.x, np.sqrt(np.diag(covariance))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--post-us", type=float, default=3.2)
    given = parser.parse_args()
    run = Run.load(given.run)
    system = resolve(parse(run.manifest["spec_yaml"]))
    assert system.wires is not None, "a pair's run is wanted"
    pool = system.pools[1]
    moved = run.transfers.merge(run.requests[["request_id", "prompt_tokens", "prefill_end_s"]], on="request_id")
    begin, end = moved["start_s"].to_numpy(), moved["end_s"].to_numpy()
    alone = np.array([((begin < e) & (end > b)).sum() == 1 for b, e in zip(begin, end, strict=True)])
    own = moved[alone]
    size = own["bytes"].to_numpy(dtype=float)
    each = system.wires.hand_over.descriptors(system.model.layers, bool(system.model.latent_dim), 1)
    posts = size / (system.kv_bytes_per_token * pool.limits.block_size) * each * given.post_us * 1e-6
    ones = np.ones_like(size)
    wire, wire_error = fit(
        np.column_stack([1e-3 * ones, size * 1e-12, posts]), (own["end_s"] - own["start_s"]).to_numpy(), (4, 20)
    )
    prompts = own["prompt_tokens"].to_numpy(dtype=float)
    gap = (own["start_s"] - own["prefill_end_s"]).to_numpy()
    way, way_error = fit(np.column_stack([1e-3 * ones, 1e-6 * prompts, 0 * ones]), gap, (4, 1))
    print(f"{len(own)} of {len(moved)} transfers had the wires to themselves; {given.post_us} us a descriptor")
    print(f"latency {1e3 * wire[0]:.0f} us (standard error {1e3 * wire_error[0]:.0f})")
    low, high = (1e3 / max(wire[1] + sign * wire_error[1], 1e-9) for sign in (1, -1))
    print(f"bandwidth {1e3 / wire[1]:.0f} GB/s (a standard error away: {low:.0f} and {high:.0f})")
    print(f"way {way[0]:.2f} ms (standard error {way_error[0]:.2f})")
    print(f"way {way[1]:.2f} us a prompt token (standard error {way_error[1]:.2f})")


if __name__ == "__main__":
    main()
