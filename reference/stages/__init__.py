"""When it happens: each stage reads records, calls the paper, writes records."""
