"""Models on transformers: loading, quantization, scoring, generation. This package imports torch."""

from llmjobs.quantization import quiet_imports

quiet_imports()
