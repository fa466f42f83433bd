"""The papers' experiments as functions `f(data, **config) -> dict of arrays`.

Each is called through `rclib.runs.store` or `rclib.runs.sweep`, which keep its results. A
configuration is plain JSON; a module here is all that a notebook's computation consists of.
"""
