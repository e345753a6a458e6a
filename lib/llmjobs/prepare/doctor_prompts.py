"""Checks of prompts: what a chat template does with the ``thinking`` that the manifest asks for."""

from collections.abc import Iterator

from llmjobs.engines.locate import is_on_hub
from llmjobs.engines.registry import engine_of, locate
from llmjobs.errors import ModelError
from llmjobs.manifest import BenchmarkSpec, ModelSpec
from llmjobs.prepare.doctor_network import is_cached
from llmjobs.prepare.doctor_result import Check, Checkup, asked_of
from llmjobs.prompt_format import PromptFormat, check_has_template, unused_thinking


def check_prompts(checkup: Checkup) -> Iterator[Check]:
    """Write a prompt as the jobs do, for each model whose files are here and whose chat template is used."""
    study = checkup.study
    talks = study is not None and any((study.chat, study.converse, study.mtbench))
    for model in checkup.models:
        is_asked = model.chat_template or model.thinking != "off"
        if not (is_asked or talks) or asked_of(model) in checkup.unusable:
            continue
        name = f"prompts of {model.name}"
        if is_on_hub(model) and not is_cached(model):
            if model.thinking != "off":
                yield Check(name, "ok", f"thinking: {model.thinking} can only be checked after the download")
            continue
        try:
            yield from _check_thinking(name, model, checkup, talks=talks)
        except ModelError as error:
            yield Check(name, "failed", str(error).removeprefix(f"{model.name}: "))


def _check_thinking(name: str, model: ModelSpec, checkup: Checkup, *, talks: bool) -> Iterator[Check]:
    study = checkup.study
    evaluated = study.eval.benchmarks if study and study.eval and model in study.models else []
    if evaluated and (unused := unused_thinking(model.chat_template, model.thinking)):
        yield Check(name, "warning", f"eval: {unused}")
        if not talks:
            return  # no job uses the template, so nothing will be refused
    tokenizer = engine_of(model).load_tokenizer(model, locate(model))
    if not model.chat_template and not getattr(tokenizer, "chat_template", None):
        check_has_template(model.name, model.thinking, has_template=False)
        return
    form = PromptFormat(tokenizer, who=model.name, thinking=model.thinking)
    for benchmark in evaluated if model.chat_template else ():
        if any(_is_scored(benchmark, subject) for subject in benchmark.subject_names()):
            form.check_scoring(benchmark.name)
    line = "the chat template has no thinking" if form.thinking == "none" else f"thinking is {form.thinking}"
    room = f", with at most {model.thinking_tokens:,} tokens" if form.is_thinking else ""
    yield Check(name, "ok", f"{line}{room}")


def _is_scored(spec: BenchmarkSpec, subject: str) -> bool:
    return spec.benchmark()(spec.options()).output_type(subject) == "loglikelihood"
