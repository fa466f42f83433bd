"""Measurements on checkpoints."""
