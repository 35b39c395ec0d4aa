"""The text language that all parts speak: markers, steps, prompts, tokenizer."""
