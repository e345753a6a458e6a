"""The report: reads run folders and other tools' logs; writes a PDF, figures, tables and notes. No torch.

``read`` turns files into raw entries, ``assemble`` matches them on the same questions, ``measure`` computes,
``sections`` turn results into blocks, and ``pdf`` and ``write`` turn blocks into files.
"""
