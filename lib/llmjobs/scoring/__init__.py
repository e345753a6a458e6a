"""Log-likelihoods and generation of causal language models.

``requests`` say what is asked, ``plan`` in which batches; ``engine`` and ``generate`` run it and import
torch.
"""
