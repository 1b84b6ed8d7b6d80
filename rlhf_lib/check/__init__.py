"""One check of params.yaml and of what it names, before anything runs: `python -m rlhf_lib.check`."""
