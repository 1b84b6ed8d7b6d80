"""Benchmark of PPO without a critic beside TRL's GRPOTrainer and RLOOTrainer."""
