"""llama.cpp: models as GGUF files, through the C API of ``llama-cpp-python``."""

NOT_FINITE = "the model's output is not a number (NaN or infinite); the file may be damaged or badly quantized"
"""Message for a result that is not a number."""
