"""Two textbook definitions written out, to compare the library with."""

from collections.abc import Hashable, Sequence


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """Cohen's κ of two raters by the definition."""
    n = len(first)
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / n
    labels = set(first) | set(second)
    expected = sum(list(first).count(x) / n * list(second).count(x) / n for x in labels)
    return (observed - expected) / (1 - expected)


def jaccard_sets(first: set[int], second: set[int]) -> float:
    """Shared over all."""
    return len(first & second) / len(first | second)
