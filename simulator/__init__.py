"""Discrete-event simulator of an LLM serving cluster."""
