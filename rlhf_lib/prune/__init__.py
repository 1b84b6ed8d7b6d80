"""`make prune`: what takes how much disk, and freeing the models of swept experiments while their numbers stay."""
