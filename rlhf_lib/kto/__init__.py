"""Stage kto: TRL's KTOTrainer on answers that are good or bad."""
