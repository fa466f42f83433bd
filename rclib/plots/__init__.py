"""Figures that several notebooks share."""
