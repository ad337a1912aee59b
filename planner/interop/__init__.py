"""Configurations of other stacks, in and out."""
