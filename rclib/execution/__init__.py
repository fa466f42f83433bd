"""Executing the notebooks."""
