"""Test vectors for the paper's equations, and a command that holds any implementation to them."""
