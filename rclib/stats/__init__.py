"""Distances, slopes and their uncertainty."""
