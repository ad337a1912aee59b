"""Predicted against measured: errors of a metric, recorded runs, intervals."""
