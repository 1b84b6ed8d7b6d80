"""Scores of answers given as text: by a reward model, or by a rule for true quality."""
