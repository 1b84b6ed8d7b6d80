"""Loading models and what they compute with: hardware, chat template, attention, log-probs, processes."""
