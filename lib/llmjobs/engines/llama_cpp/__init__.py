"""llama.cpp: models as GGUF files, through the C API of ``llama-cpp-python``."""

NOT_FINITE = "the model computes values that are not numbers; the file may be damaged, or quantized wrongly"
"""Message for a result that is not a number."""
