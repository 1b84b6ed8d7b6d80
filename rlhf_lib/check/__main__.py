"""python -m rlhf_lib.check"""
