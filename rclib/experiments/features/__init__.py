"""Random features and representations: notebooks 7x."""
