"""One module a kind of target: its name comes in, a spec goes out."""
