"""Stages rft and rft_random: fine-tuning of the SFT model on one of several answers of its own to each prompt."""
