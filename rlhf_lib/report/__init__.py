"""Stage report: the comparison as one page, a table and pictures."""
