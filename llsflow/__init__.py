"""llsflow: declarative fine-tuning, evaluation and agents for language models."""
