"""A pair and its aggregated counterpart, with knobs of `optimizations` and without."""

from __future__ import annotations

from planner import simulate
from planner.run.metrics import Summary, summarise
from planner.run.tables import Run
from planner.spec import parse

PD = """
name: knobs
model: llama-3.1-8b
hardware: h200
profile: h200-llama-3.1-8b-tp1
deployment: {mode: disaggregated, link: {preset: ethernet_10g}}
workload: {kind: poisson, rate: 2, requests: 80, prompt_tokens: 3000, output_tokens: 50}
"""
AGG = PD.replace("{mode: disaggregated, link: {preset: ethernet_10g}}", "{mode: aggregated}")
NVLINK = "deployment.link.preset=nvlink"


def run(text: str, *overrides: str) -> Run:
    return simulate(parse(text, overrides=overrides))


def summary(text: str, *overrides: str) -> Summary:
    return summarise(run(text, *overrides))


def effect(text: str, metric: str, base: tuple[str, ...], knob: str) -> float:
    """The metric with the knob over the metric without it."""
    return summary(text, *base, f"optimizations.{knob}").number(metric) / summary(text, *base).number(metric)
