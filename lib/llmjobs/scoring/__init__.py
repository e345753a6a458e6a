"""Log-likelihoods and generation: what is asked (``requests``), in which batches (``plan``), and the engines that
run them (``engine``, ``generate``). Only the engines import torch."""
