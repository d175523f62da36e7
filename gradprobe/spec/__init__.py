"""A network as data, and the sources that give one: a target's name comes in, a spec goes out."""
