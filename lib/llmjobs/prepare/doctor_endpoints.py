"""Checks of the servers that a manifest names: whether they answer, and how their log-probabilities can be had."""

from collections.abc import Iterator

from llmjobs.engines.registry import open_model
from llmjobs.errors import LlmjobsError
from llmjobs.fetch import walk
from llmjobs.manifest import ModelSpec
from llmjobs.manifest.mtbench import JudgeSpec
from llmjobs.prepare.doctor_checks import Check, Checkup


def check_endpoints(checkup: Checkup) -> Iterator[Check]:
    """Ask each server for its models and, for an eval, try its log-probabilities: about ten calls of one token."""
    found = walk(checkup.study, ModelSpec) if checkup.study else ()
    for spec in {(one.endpoint, one.id, one.name): one for one in found if one.endpoint}.values():
        name = f"server of {spec.name}"
        try:
            engine = open_model(spec)
        except LlmjobsError as error:
            yield Check(name, "failed", str(error).removeprefix(f"{spec.name} at "))
            continue
        replies = "messages" if spec.chat_template else "plain texts"
        if isinstance(spec, JudgeSpec) or checkup.study is None or checkup.study.eval is None:
            yield Check(name, "ok", f"answers {replies}")
            continue
        try:
            way = engine.scorer().probe()
            yield Check(name, "ok", f"answers {replies}; log-likelihoods by {way.path} ({way.reason})")
        except LlmjobsError as error:
            line = f"answers {replies}, without log-likelihoods: {str(error).removeprefix(f'{spec.name} at ')}"
            yield Check(name, "warning", line)
        finally:
            engine.close()
