"""A program that trains → the measurement of a step of its own."""
