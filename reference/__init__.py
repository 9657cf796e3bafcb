"""Reference implementation of "Learning What to Learn" (arXiv 2606.04466)."""
