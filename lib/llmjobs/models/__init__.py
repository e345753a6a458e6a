"""Models: found, loaded, quantized, described as they really are. Torch is imported here and in ``scoring`` alone."""
