"""Judge prompts in FastChat's form: the project's own words, or a user's file to reproduce published settings."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmjobs.benchmarks.rows import read_rows
from llmjobs.errors import DataError
from llmjobs.work.journal import encode

OWN_FILE = Path(__file__).parent / "data" / "judge_prompts.jsonl"
BASES = {("single", False): "single-v1", ("single", True): "single-math-v1"} | {
    ("pairwise", False): "pair-v2",
    ("pairwise", True): "pair-math-v1",
}
_FIELD = re.compile(r"\{\{|\}\}|\{(\w+)\}")
_FIELDS = {
    "single": {"question", "answer", "question_1", "question_2", "answer_1", "answer_2"},
    "pairwise": {"question", "answer_a", "answer_b", "question_1", "question_2"}
    | {f"answer_{side}_{turn}" for side in "ab" for turn in (1, 2)},
}
_REFERENCES = {"ref_answer_1", "ref_answer_2"}


@dataclass(frozen=True)
class JudgePrompt:
    """One prompt of the judge."""

    name: str
    type: str
    system: str
    template: str

    def fill(self, values: Mapping[str, str]) -> str:
        """The template with ``{name}`` replaced; braces in the values stay as they are."""
        return _FIELD.sub(lambda m: values[m[1]] if m[1] else m[0][0], self.template)


@dataclass(frozen=True)
class PromptSet:
    """All prompts of one file."""

    source: str
    prompts: Mapping[str, JudgePrompt]

    @property
    def hash(self) -> str:
        """SHA-256 over their names and texts."""
        lines = (encode({"n": p.name, "s": p.system, "t": p.template}) for p in self.prompts.values())
        return hashlib.sha256(b"".join(lines)).hexdigest()[:16]

    def choose(self, mode: str, *, with_reference: bool, turn: int) -> JudgePrompt:
        """The prompt for a mode, with or without reference, turn 1 or 2.

        Raises:
            DataError: the file has none of that name.

        """
        name = BASES[mode, with_reference] + ("-multi-turn" if turn == 2 else "")
        if name not in self.prompts:
            raise DataError(f"{self.source}: has no prompt {name!r}; it has {', '.join(self.prompts)}")
        return self.prompts[name]


def read_prompts(source: str) -> PromptSet:
    """The prompts of ``own`` or of a file.

    Raises:
        DataError: no such file, a line that is no prompt, or a field that nothing fills.

    """
    path = OWN_FILE if source == "own" else Path(source)
    if not path.is_file():
        raise DataError(f"{source}: file not found; name a file of judge prompts, or 'own'")
    found = {}
    for number, row in read_rows(path):
        prompt = _prompt(f"{path}:{number}", row)
        found[prompt.name] = prompt
    if not found:
        raise DataError(f"{path}: contains no judge prompt")
    return PromptSet(source, found)


def _prompt(where: str, row: Mapping[str, Any]) -> JudgePrompt:
    texts = {key: row.get(key) for key in ("name", "type", "system_prompt", "prompt_template")}
    for key, text in texts.items():
        if not isinstance(text, str):
            raise DataError(f"{where}: {key}: must be text")
    prompt = JudgePrompt(*(str(text) for text in texts.values()))
    if prompt.type not in _FIELDS:
        raise DataError(f"{where}: type: '{prompt.type}' is not one of {', '.join(_FIELDS)}")
    allowed = _FIELDS[prompt.type] | _REFERENCES
    for name in _FIELD.findall(prompt.template):
        if name and name not in allowed:
            raise DataError(f"{where}: prompt_template: {{{name}}} is not one of {', '.join(sorted(allowed))}")
    return prompt
