"""Stage load: the readers of each source, and the one row type that they make."""
