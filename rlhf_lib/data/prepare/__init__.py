"""Stage prepare: cleaning, filters, de-duplication, split by prompt, and what is derived from the rows."""
