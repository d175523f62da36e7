"""A subject comes in; Jacobians, paths, positions and one block's numbers go out."""
