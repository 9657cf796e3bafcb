"""Implementations as the vectors call them."""
