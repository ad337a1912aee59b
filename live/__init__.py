"""Runs the same spec on real vLLM servers."""
