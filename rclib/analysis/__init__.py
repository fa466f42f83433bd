"""One call on a model: the table of its matrices, a figure and a page."""
