"""An optimizer step on a device: micro-batches, their passes, and the gradients that ranks exchange."""
