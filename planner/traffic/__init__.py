"""Requests and where they come from: workloads, traces, sessions, random streams."""
