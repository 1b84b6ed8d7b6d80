"""What lm-evaluation-harness says of the policies: whether alignment cost what the SFT model could do."""
