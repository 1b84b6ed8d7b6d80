"""Stage llm_judge: a language model's comparison of two policies' answers."""
