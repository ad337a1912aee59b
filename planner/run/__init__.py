"""What a run leaves behind: its tables, facts drawn from them, and one catalogue of metrics."""
