"""The commands of `python -m rclib`."""
