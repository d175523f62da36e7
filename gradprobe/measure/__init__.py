"""A subject comes in; a profile goes out: everything measured, no tensors."""
