"""Checkpoints of any kind, read without trust."""
