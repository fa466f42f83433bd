"""One notebook's claims, figures and results."""
