"""An outcome of ``gradprobe check`` comes in, a string goes out: one file a format."""
