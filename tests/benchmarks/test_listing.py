"""``llmjobs benchmarks`` and what every registered benchmark must have."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from llmjobs.benchmarks.base import Options
from llmjobs.benchmarks.registry import benchmark_class, markdown, names
from llmjobs.cli import benchmarks_command


def test_the_table_has_a_line_a_benchmark() -> None:
    lines = CliRunner().invoke(benchmarks_command, []).output.splitlines()
    assert len(lines) == len(names()) + 1
    assert lines[0].split() == ["name", "questions", "subjects", "shots", "answer", "metric", "version", "rows"]
    mmlu = next(line for line in lines if line.startswith("mmlu "))
    assert mmlu.split() == ["mmlu", "14,042", "57", "0", "options", "or", "text", "acc", "1", "cais/mmlu"]


def test_one_benchmark_in_full() -> None:
    output = CliRunner().invoke(benchmarks_command, ["mmlu"]).output
    assert "lm-eval, original, course" in output and "high_school_us_history" in output
    assert "stem, humanities, social_sciences, other" in output


def test_a_typo_is_told() -> None:
    result = CliRunner().invoke(benchmarks_command, ["hellaswg"])
    assert result.exit_code == 2 and "did you mean 'hellaswag'?" in result.output


@pytest.mark.parametrize("name", names())
def test_the_facts_are_complete(name: str) -> None:
    found = benchmark_class(name)
    assert found.name == name and found.title and found.source and found.test_rows > 0
    assert found.default_num_fewshot <= found.max_fewshot
    benchmark = found(Options(found.default_num_fewshot, found.prompts[0], found.output_types[0]))
    assert {benchmark.output_type(s) for s in found.subjects} <= {"loglikelihood", "generate_until"}
    assert found.hub is None or "test" in found.hub.splits


def test_the_documentation_has_the_same_table() -> None:
    text = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert markdown() in text, "copy the output of llmjobs.benchmarks.registry.markdown() into docs/benchmarks.md"
