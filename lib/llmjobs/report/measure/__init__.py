"""Everything that is computed from a study, once, when a section first asks for it."""

from dataclasses import dataclass
from functools import cached_property

from llmjobs.report.measure.accuracy import BenchmarkAccuracy, measure_accuracy, without_faulty
from llmjobs.report.measure.overlap import Overlap, Pair, measure_overlap, measure_pairs
from llmjobs.report.measure.patterns import ModelPatterns, measure_patterns
from llmjobs.report.measure.scores import MetricScores, measure_scores
from llmjobs.report.study import Benchmark, Study


@dataclass
class Measures:
    """Measures of a study; each property is computed on first use and kept."""

    study: Study

    @cached_property
    def accuracy(self) -> dict[str, BenchmarkAccuracy]:
        """Leaderboards by benchmark."""
        return {benchmark.name: measure_accuracy(benchmark) for benchmark in self.study.benchmarks}

    @cached_property
    def pairs(self) -> dict[str, list[Pair]]:
        """Paired differences by benchmark."""
        return {benchmark.name: measure_pairs(self.study, benchmark) for benchmark in self.study.benchmarks}

    @cached_property
    def overlap(self) -> dict[str, Overlap]:
        """Overlap of mistakes by benchmark, if at least two models can be compared."""
        found = {benchmark.name: measure_overlap(self.study, benchmark) for benchmark in self.study.benchmarks}
        return {name: overlap for name, overlap in found.items() if overlap is not None}

    @cached_property
    def patterns(self) -> dict[str, list[ModelPatterns]]:
        """Tests for patterns by benchmark."""
        return {benchmark.name: measure_patterns(benchmark) for benchmark in self.study.benchmarks}

    @cached_property
    def without_faulty(self) -> dict[str, Benchmark]:
        """Benchmarks without the questions whose labels the notes mark as faulty, if there are any."""
        found = {benchmark.name: without_faulty(self.study, benchmark) for benchmark in self.study.benchmarks}
        return {name: benchmark for name, benchmark in found.items() if benchmark is not None}

    @cached_property
    def scores(self) -> list[MetricScores]:
        """Means of every metric, for benchmarks with several metrics or partial credit."""
        return [measure_scores(table) for table in self.study.metrics]

    def label(self, benchmark: Benchmark, row: int) -> str:
        """Return the name of a benchmark's row."""
        return self.study.entries[benchmark.rows[row]].label
