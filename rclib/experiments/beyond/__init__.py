"""Beyond the two papers: notebooks 3x."""
