"""Networks at another width."""
