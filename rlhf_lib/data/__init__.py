"""From sources to splits: `load` reads, `prepare` filters and splits."""
