"""A network taken apart:
a module and its rows come in; Jacobians, paths, positions, one block's numbers go out."""
