"""A run's report: what happened, beside the paper, on one page. Reads a run's files; nothing else reads the report."""
