"""The report: result folders and other tools' logs in; a PDF, figures, tables and notes out. No torch.

``read`` turns files into raw entries, ``assemble`` lines them up on the same questions, ``measure``
computes, ``sections`` say it in blocks, ``pdf``, ``figures`` and ``write`` put the blocks on paper.
"""
