"""Series 8: fine-tuning and few bits."""
