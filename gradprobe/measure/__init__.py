"""A module and what it is called with come in; a profile goes out:
everything measured, no tensors."""
