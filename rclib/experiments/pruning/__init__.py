"""Pruning and data: notebooks 4x."""
