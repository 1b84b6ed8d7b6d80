"""`python -m rlhf_lib.experiments`: sweeps, their table and their frontier."""
