"""Models by transformers: loaded, quantized, scored, generated from. Torch is imported here."""

from llmjobs.quantization import quiet_imports

quiet_imports()
