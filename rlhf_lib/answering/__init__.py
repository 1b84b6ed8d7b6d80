"""`make generate`: a model's answers to a file of prompts."""
