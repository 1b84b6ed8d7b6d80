"""Stages reward and judge: reward models of pairs, groups or scores."""
