"""Texts written from results."""
