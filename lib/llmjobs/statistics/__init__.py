"""Statistics of right and wrong answers, on numpy and scipy alone.

Shares are between 0 and 1; intervals are two-sided, 95 % by default; every formula names its source.
"""
