"""MT-Bench: agents answer two-turn questions, judges rate them. No torch.

Read in this order: ``questions`` (what is asked), ``judging`` (one judgment), ``tasks`` and ``job`` (the run),
``fastchat`` (imported files), then the analysis: ``scores`` and ``agreement``, ``summary`` and ``chapter``.
``ask_again`` and ``chat.endpoint_backend`` make sure that no call to an endpoint is paid twice or exceeds the limit.
"""
