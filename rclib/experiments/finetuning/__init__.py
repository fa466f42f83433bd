"""Fine-tuning and few bits: notebooks 8x."""
