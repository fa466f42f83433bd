"""Which axes a checkpoint's tensors have."""
