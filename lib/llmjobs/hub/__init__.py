"""All contact with the hub. No torch.

``repositories``: names, commits, access, token; ``files``: models into the cache; ``datasets``: rows; ``explain``:
every error in one line.
"""
