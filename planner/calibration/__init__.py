"""Measurements of an engine become its profile: loads, rows, launches, fits and their sources."""
