"""The same in a process of its own: a request comes in, a measurement or a failure goes out."""
