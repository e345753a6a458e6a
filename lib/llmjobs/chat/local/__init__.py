"""A model on this machine as what answers. Torch is imported here, and nowhere else below ``llmjobs.chat``."""
