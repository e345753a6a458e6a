"""The eval job: accuracy of models on benchmarks."""
