"""Stage ppo: proximal policy optimisation as a transformers.Trainer on its own rollouts."""
