"""Dynamics of learning: notebooks 6x."""
