"""Stage candidates: answers of the SFT model, with their rewards, to choose from."""
