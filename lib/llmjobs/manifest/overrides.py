"""``--set path=value``: changes one value of a manifest before it is validated."""

import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import yaml

from llmjobs.errors import ManifestError
from llmjobs.manifest.yaml_source import Source, ValuePath

MAX_LENGTH = 10_000
SHORT_FOR = {"models": "id", "judges": "id", "benchmarks": "name", "answers": "file"}
"""List → the key that a bare text in it stands for (``- meta-llama/Llama-3.2-1B``)."""
_STEP = re.compile(r"([A-Za-z_][\w-]*)((?:\[\d{1,6}\])*)")


def apply_overrides(source: Source, assignments: Sequence[str]) -> Source:
    """Return ``source`` with each ``path=value`` applied in order; values are YAML (``4bit``, ``[a, b]``, ``null``).

    Raises:
        ManifestError: an assignment without ``=``, or a path that leads through something that is no mapping or list.

    """
    values = deepcopy(source.values)
    for assignment in assignments:
        path_text, equals, text = assignment.partition("=")
        if not equals or len(assignment) > MAX_LENGTH:
            raise ManifestError(
                f"--set {assignment[:60]}: write path=value, for example --set models[0].quantization=4bit"
            )
        _assign(values, parse_path(path_text), _parse_value(assignment, text), f"--set {assignment}")
    return replace(source, values=values)


def parse_path(text: str) -> ValuePath:
    """``models[0].id`` → ``("models", 0, "id")``."""
    path: list[str | int] = []
    for part in text.strip().split("."):
        match = _STEP.fullmatch(part)
        if not match:
            raise ManifestError(f"--set {text}: not a path; write it like eval.benchmarks[0].limit")
        path.append(match.group(1))
        path.extend(int(i) for i in re.findall(r"\d+", match.group(2)))
    return tuple(path)


def _parse_value(assignment: str, text: str) -> Any:
    try:
        return yaml.safe_load(text) if text.strip() else None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ManifestError(f"--set {assignment}: the value is not valid YAML; quote it") from None


def _assign(values: Any, path: ValuePath, value: Any, said: str) -> None:
    *parents, last = path
    of = ""
    for step, following in zip(parents, path[1:], strict=True):
        if isinstance(following, str) and of in SHORT_FOR:
            _spell_out(values, step, SHORT_FOR[of])
        values = _enter(values, step, [] if isinstance(following, int) else {}, said)
        of = step if isinstance(step, str) else of
    if isinstance(values, list) and last == len(values):
        values.append(value)
    elif _can_set(values, last):
        values[last] = value
    else:
        raise ManifestError(f"{said}: there is no {last!r} to set here; {_has(values)}")


def _spell_out(values: Any, step: str | int, key: str) -> None:
    """Write the short form of a list's entry as a mapping, so that there is a key to set."""
    if isinstance(values, list) and isinstance(step, int) and step < len(values) and isinstance(values[step], str):
        values[step] = {key: values[step]}


def _can_set(values: Any, step: str | int) -> bool:
    if isinstance(values, dict):
        return isinstance(step, str)
    return isinstance(values, list) and isinstance(step, int) and step < len(values)


def _enter(values: Any, step: str | int, empty: Any, said: str) -> Any:
    if isinstance(values, dict) and isinstance(step, str):
        if values.get(step) is None:
            values[step] = empty
        return values[step]
    if isinstance(values, list) and isinstance(step, int) and step < len(values):
        return values[step]
    raise ManifestError(f"{said}: there is no {step!r} to set here; {_has(values)}")


def _has(values: Any) -> str:
    if isinstance(values, list):
        return f"the list has {len(values)} entries, counted from 0"
    if isinstance(values, dict):
        return f"the keys are {', '.join(map(str, values))}"
    return f"the value is {values!r}"
