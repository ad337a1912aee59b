"""A plan that keeps proving itself: a running stack's counters against what was predicted of it."""
