"""Models by transformers: loaded, quantized, scored, generated from. Torch is imported here."""
