"""A run goes on only with the settings that it was begun with; the field that differs is named.

A field that the saved settings do not have was not known to the llmjobs that saved them: it is not compared, so that
runs of an older version go on. Where the keys are names of things, not settings, a new one is a difference.
"""

from collections.abc import Mapping
from typing import Any

from llmjobs.errors import FingerprintError
from llmjobs.runfolder.folder import UnitFolder

OF_NAMES = ("questions",)
"""Fields whose keys are names (of benchmarks' subjects): one more or less is another set of questions."""
_PROMPTS = "the prompts would not be those that the unit began with"
_EXPLAINED = {
    "template_hash": f"the model's chat template has changed, so {_PROMPTS}",
    "prompt_date": f"the chat template prints the date, so {_PROMPTS}",
    "thinking": f"the chat template's thinking is set in another way, so {_PROMPTS}",
    "template_system": f"the chat template adds another system message, so {_PROMPTS}",
    "prompts": f"{_PROMPTS}: the tokenizer, its chat template, or the version of transformers or llmjobs has changed",
    "plan": "the batches would not be those that the unit began with: another version of llmjobs plans them in another"
    " way, or the model's probe came out differently",
    "steps": "the steps would not be those that the unit began with: another version of llmjobs orders the questions in"
    " another way",
}
"""Fields whose values say nothing to people."""


def compare(unit: UnitFolder, kind: str, saved: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Refuse to go on with other settings.

    Raises:
        FingerprintError: names the first field that differs.

    """
    if found := _difference(saved, asked):
        key, was, now = found
        if why := _EXPLAINED.get(key.partition(".")[0]):
            raise FingerprintError(
                f"{unit.path}: {why} ({key}: {_short(was)}, now {_short(now)}). Go on with the versions in"
                " environment.json, give the run another name (--set name=…), or start anew with --fresh"
            )
        raise FingerprintError(
            f"{unit.path}: {key} was {_short(was)} and is now {_short(now)}; "
            f"put it back, give the run another name (--set name=…), or start anew with --fresh ({kind})"
        )


def _difference(
    saved: Mapping[str, Any], asked: Mapping[str, Any], *, names: bool = False
) -> tuple[str, Any, Any] | None:
    """The first field that differs, of mappings within by their path (``questions.mmlu.astronomy.data_hash``)."""
    for key in dict.fromkeys([*saved, *(asked if names else ())]):
        was, now = saved.get(key), asked.get(key)
        if was == now:
            continue
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            if inner := _difference(was, now, names=key in OF_NAMES):
                return f"{key}.{inner[0]}", *inner[1:]
            continue
        return key, was, now
    return None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
