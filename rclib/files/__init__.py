"""Files from elsewhere, files written whole, and how commands end."""
