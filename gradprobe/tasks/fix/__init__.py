"""What ``gradprobe fix`` does:
a failing spec comes in, the smallest change that mends it goes out."""
