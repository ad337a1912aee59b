"""A grid of questions, answered over processes and kept row by row. See planner.sweep.grid."""
