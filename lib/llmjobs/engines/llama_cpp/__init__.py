"""llama.cpp: models as GGUF files, through the C API of ``llama-cpp-python``."""
