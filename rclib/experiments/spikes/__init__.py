"""Paper B: notebooks 2x."""
