"""Initialisation and growth: notebooks 5x."""
