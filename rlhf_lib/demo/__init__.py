"""The demo's small language, and the rule for the true quality of an answer."""
