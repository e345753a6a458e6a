"""All contact with the hub. No torch.

``repositories``: names, commits, access, token; ``files``: models into the cache; ``rows``: data sets; ``explain``:
every error in one line; ``progress``: bytes that arrive.
"""
