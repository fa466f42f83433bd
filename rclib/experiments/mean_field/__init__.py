"""Paper A: notebooks 1x."""
