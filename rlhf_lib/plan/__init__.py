"""`python -m rlhf_lib.plan`: what each stage will need, before it runs."""
