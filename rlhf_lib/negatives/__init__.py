"""Stage negatives: a model's answers as rejected ones."""
