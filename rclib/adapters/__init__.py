"""Few trainable numbers beside frozen matrices: methods of parameter-efficient fine-tuning."""
