"""Which split of N GPUs, up to which rate, and is it worth it."""
