"""Sums over tensors that need not fit into memory."""
