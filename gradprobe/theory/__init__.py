"""A network as data comes in; what mean-field theory predicts of it goes out. No torch."""
