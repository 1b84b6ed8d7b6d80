"""Stages evaluate and best_of_n: samples of the policies on the test prompts, scored."""
