"""A value comes in, a string goes out: pure, with width and colour handed in."""
