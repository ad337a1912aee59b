"""A spec with all of its names looked up: pools on nodes, engines' limits, wires between workers."""
