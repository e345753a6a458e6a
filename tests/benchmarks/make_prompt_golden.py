"""Writes ``golden/prompts.json`` anew: ``python tests/benchmarks/make_prompt_golden.py``. Read the difference."""

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PATH = HERE / "golden" / "prompts.json"


def prompts() -> dict[str, Any]:
    """Every context and continuation of the sample rows, by benchmark, prompt form and number of shots."""
    from asking import ask, make, shots_to_try
    from benchmark_samples import SAMPLES
    from tiny_models import tiny_tokenizer

    from llmjobs.benchmarks.prompting import ChatStyle, PromptWriter
    from llmjobs.benchmarks.registry import benchmark_class

    tokenizer = tiny_tokenizer()
    found: dict[str, Any] = {}
    for name in SAMPLES:
        for form in benchmark_class(name).prompts:
            for count in [0] if form == "course" else shots_to_try(name):
                benchmark = make(name, count, form)
                docs, shots = ask(benchmark)
                for chat in [False, True]:
                    writer = PromptWriter(benchmark, shots, tokenizer, ChatStyle(chat))
                    generated = benchmark.output_type(docs[0].subject) == "generate_until"
                    texts = [[[t.context, t.continuation] for t in writer.write(d, count, generated)] for d in docs[:2]]
                    found[f"{name} {form} {count}-shot{' chat' if chat else ''}"] = texts
    return found


if __name__ == "__main__":
    sys.path[:0] = [str(HERE), str(HERE.parents[1] / "lib")]
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(json.dumps(prompts(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(PATH.relative_to(Path.cwd()) if PATH.is_relative_to(Path.cwd()) else PATH)
