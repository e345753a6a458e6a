"""A chat agent from the inside: memory, prompt, model, loop. No chat-agent library under it.

Read in this order: ``messages`` (what a conversation is), ``strategies`` (what of it is sent), ``prompt`` (messages
into tokens), ``text_stream`` (tokens into text), ``backend`` (what answers), ``agent`` (one turn, then the next).
``local`` runs a model here and is the only part that imports torch; ``endpoint`` asks a server.
``store`` keeps a conversation on disk, ``terminal`` and ``slash`` talk to a person, ``server`` to other programs.
"""
