"""Stage base: a pretrained model or a fresh GPT-2, with pad token and chat template."""
