"""Runs: computed once, kept, found again."""
