"""A profile comes in; findings go out."""
