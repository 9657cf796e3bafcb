"""What the paper says: its equations, Algorithm 1, prompts and tables. Pure: no files, no printing, no engines."""
