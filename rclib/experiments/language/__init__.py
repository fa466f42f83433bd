"""Language models, and far from weights: notebooks 9x."""
