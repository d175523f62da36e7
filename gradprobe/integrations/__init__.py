"""A trainer of another library → ``gradprobe.watch`` inside it: callbacks to import."""
