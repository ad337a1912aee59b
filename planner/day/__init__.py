"""A day's traffic: how N GPUs should be split hour by hour, and what changing the split costs and brings."""
