"""Multiple choice by log-likelihood: the judgement that most benchmarks share."""

from collections.abc import Sequence

from llmjobs.benchmarks.base import Benchmark, Doc, Judgement, argmax, letter


class MultipleChoice(Benchmark):
    """A benchmark whose answer is the option with the largest log-likelihood.

    ``acc`` takes it as it is; where ``acc_norm`` is the primary metric, both are given and the prediction is the option
    with the largest log-likelihood a character (without the leading space), as lm-eval counts it.
    """

    normalised = False
    """Whether ``acc_norm`` is given too."""

    def judge(self, doc: Doc, loglikelihoods: Sequence[float], is_greedy: Sequence[bool] = ()) -> Judgement:
        """Compare the options; a tie goes to the first."""
        best = letter(argmax(loglikelihoods))
        metrics = {"acc": float(best == doc.gold)}
        if self.normalised:
            lengths = [len(choice) for choice in doc.choices]
            by_length = letter(argmax([ll / n for ll, n in zip(loglikelihoods, lengths, strict=True)]))
            metrics["acc_norm"] = float(by_length == doc.gold)
            if self.primary_metric == "acc_norm":
                best = by_length
        return Judgement(best, best == doc.gold, metrics)
