"""MT-Bench's content: questions, judge prompts, ratings, FastChat's files, scores, limits. No torch.

Read in this order: ``questions`` (what is asked), ``judge_prompts`` and ``rating`` (how it is judged), ``judging``
(one judgment), ``fastchat`` (files of other people), then what is made of it: ``scores``, ``pairwise``,
``agreement``, ``bias``. ``calls``, ``limits`` and ``paid_backend`` see to it that no call to an endpoint is paid twice
or over the limit.
"""
