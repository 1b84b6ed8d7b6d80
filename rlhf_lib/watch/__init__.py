"""`python -m rlhf_lib.watch`: the stage that runs, in a terminal."""
