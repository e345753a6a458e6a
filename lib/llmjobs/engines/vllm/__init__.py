"""vLLM: safetensors models through its offline ``LLM`` interface, on an NVIDIA GPU or, with the CPU build, on a CPU."""

NOT_FINITE = "the model's output is not a number (NaN or infinite); try dtype: float32, or use another checkpoint"
"""Message for a result that is not a number."""
