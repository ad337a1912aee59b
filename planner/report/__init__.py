"""Metrics in words: the answer sentence, the bottleneck, tables for the terminal, the HTML report."""
