"""Stage sft: supervised fine-tuning through TRL's SFTTrainer."""
