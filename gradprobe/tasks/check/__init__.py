"""What ``gradprobe check`` does:
a tree of files comes in, one outcome with a report a target goes out."""
