"""A network as data comes in; a module, its batch and its loss go out, ready to be measured."""
