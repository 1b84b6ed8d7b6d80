"""Sampling from a policy: how a token is drawn, and the loop that decodes."""
