"""``--set path=value``: changes one value of a manifest before it is validated."""

import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import yaml
from pydantic import ValidationError

from llmjobs.errors import ManifestError
from llmjobs.manifest.fields import not_one_of
from llmjobs.manifest.models import ModelSpec
from llmjobs.manifest.schema import Manifest
from llmjobs.manifest.yaml_source import ManifestLoader, Source, ValuePath

MAX_LENGTH = 10_000
SHORT_FOR = {"models": "id", "judges": "id", "benchmarks": "name", "answers": "file"}
"""List → the key that a plain text in it is short for (``- meta-llama/Llama-3.2-1B``)."""
_STEP = re.compile(r"([A-Za-z_][\w-]*)((?:\[\d{1,6}\])*)")


def apply_overrides(source: Source, assignments: Sequence[str]) -> Source:
    """Return ``source`` with each ``path=value`` applied in order; values are YAML (``4bit``, ``[a, b]``, ``null``).

    If that changes the derived name of a model (``models[0].quantization=4bit``), sections that refer to it follow.

    Raises:
        ManifestError: an assignment without ``=``, or a path through something that is not a mapping or list.

    """
    values, known = deepcopy(source.values), tuple(Manifest.model_fields)
    for assignment in assignments:
        path_text, equals, text = assignment.partition("=")
        if not equals or len(assignment) > MAX_LENGTH:
            raise ManifestError(
                f"--set {assignment[:60]}: write path=value, for example --set models[0].quantization=4bit"
            )
        path, said = parse_path(path_text), f"--set {assignment}"
        if path[0] not in known:
            raise ManifestError(f"{said}: unknown key {not_one_of(path[0], list(known))}")
        _assign(values, path, _parse_value(assignment, text), said)
    _rename(values, _names(source.values.get("models")), _names(values.get("models")))
    return replace(source, values=values)


def _names(models: Any) -> list[str | None]:
    """The name of each entry of ``models:``; None for one that is not valid."""
    found: list[str | None] = []
    for entry in models if isinstance(models, list) else ():
        try:
            found.append(ModelSpec.model_validate(entry).name)
        except ValidationError:
            found.append(None)
    return found


def _rename(values: dict[str, Any], before: list[str | None], after: list[str | None]) -> None:
    """Update sections that refer to a model by a derived name that an override has changed."""
    changed = {old: new for old, new in zip(before, after, strict=False) if old and new and old != new}
    converse, mtbench = values.get("converse"), values.get("mtbench")
    if isinstance(converse, dict) and isinstance(converse.get("models"), list):
        converse["models"] = [changed.get(name, name) if isinstance(name, str) else name for name in converse["models"]]
    if isinstance(mtbench, dict) and isinstance(mtbench.get("endpoints"), dict):
        mtbench["endpoints"] = {changed.get(name, name): value for name, value in mtbench["endpoints"].items()}


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
        return yaml.load(text, ManifestLoader) if text.strip() else None  # noqa: S506 - it is a safe loader
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
        raise ManifestError(f"{said}: there is no {_step(last)} to set here; {_has(values)}")


def _spell_out(values: Any, step: str | int, key: str) -> None:
    """Expand the short form of a list entry into a mapping, so that a key can be set."""
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
    raise ManifestError(f"{said}: there is no {_step(step)} to set here; {_has(values)}")


def _step(step: str | int) -> str:
    return f"entry {step}" if isinstance(step, int) else repr(step)


def _has(values: Any) -> str:
    if isinstance(values, list):
        return f"the list has {len(values)} entries, counted from 0; use a smaller number"
    if isinstance(values, dict):
        return f"the keys are {', '.join(map(str, values))}"
    return f"the value is {values!r}"
