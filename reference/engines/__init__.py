"""With what it runs: one file per outside tool."""
