"""vLLM: safetensors models on its offline ``LLM`` interface, on an NVIDIA GPU or, with its CPU build, on processors."""

NOT_FINITE = "the model computes values that are not numbers; try dtype: float32, or use another checkpoint"
"""What to say of a result that is no number."""
