"""What callers give, checked by name."""
