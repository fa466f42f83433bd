"""Teacher and student."""
