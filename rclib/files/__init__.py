"""Files from elsewhere, and files written whole."""
