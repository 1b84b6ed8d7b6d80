"""Stages attainable and attained: what no policy can better, and how much of it each policy reached."""
