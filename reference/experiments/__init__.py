"""The paper's experiments: variants of a run that share what they have in common, and what they show."""
