"""Networks whose width alone varies."""
