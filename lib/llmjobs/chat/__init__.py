"""A chat agent written from scratch: memory, prompt, model, loop. It uses no chat-agent library.

Read in this order: ``messages`` (what a conversation is), ``strategies`` (what of it is sent), ``prompt`` (messages
into tokens), ``text_stream`` (tokens into text), ``backend`` (what answers), ``agent`` (one turn, then the next).
``local_backend`` runs a model on this machine; ``endpoint_backend`` asks a server. ``store`` keeps a conversation on
disk, ``terminal`` talks to a person, ``server`` to other programs.
"""
