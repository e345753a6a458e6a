"""The report: reads result folders and other tools' logs, writes a PDF, figures, tables and notes. Needs no torch.

``read`` turns files into raw entries, ``assemble`` lines them up on the same questions, ``measure``
computes, ``sections`` say it in blocks, ``pdf``, ``figures`` and ``write`` put the blocks on paper.
"""
