"""Discrete-event simulator of an LLM serving cluster."""

import planner.core  # noqa: F401 - imports the package, which chooses between compiled and interpreted modules
