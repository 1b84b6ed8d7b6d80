"""Stages reference and dpo: log-probs of the pairs, and TRL's DPOTrainer on them."""
