"""What an eval would ask of models behind a server, before anything is asked: calls, tokens, cost."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llmjobs.benchmarks.prompting import EncodedUnit, encode_unit
from llmjobs.benchmarks.requests import Prompt
from llmjobs.calls.spending import BYTES_A_TOKEN
from llmjobs.errors import LlmjobsError
from llmjobs.eval.ask_again import make_spending
from llmjobs.eval.tasks import Task
from llmjobs.manifest import EvalSection, ModelSpec


@dataclass
class CallPlan:
    """The calls of one model, at most: for log-likelihoods one an option, or one a question by its next token."""

    model: str
    calls: int = 0
    prompt_tokens: int = 0
    """Estimated from the prompts' bytes."""
    new_tokens: int = 0
    """As many as replies may have."""
    cost: float | None = None
    """In the currency of the prices; None without a price."""
    currency: str = "USD"
    error: str | None = None

    def to_record(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def plan_calls(spec: ModelSpec, tasks: Sequence[Task], section: EvalSection) -> CallPlan:
    """Count the calls of one model; what cannot be read is a line, never an exception."""
    plan = CallPlan(spec.name, currency=section.currency)
    for task in tasks:
        try:
            if task.error:
                raise LlmjobsError(task.error)
            _add(plan, _encoded(spec, task))
        except LlmjobsError as error:
            plan.error = str(error)
    if rate := make_spending(section).rates.get(spec.name):
        plan.cost = round(rate.cost(plan.prompt_tokens, plan.new_tokens), 4)
    return plan


def call_lines(plans: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each model behind a server."""
    lines = []
    for plan in plans:
        cost = f", {plan['cost']:.2f} {plan['currency']}" if plan["cost"] is not None else ""
        prompts = f"about {plan['prompt_tokens']:,} tokens of prompts"
        lines.append(
            f"{plan['model']} (server): at most {plan['calls']:,} calls, {prompts} and at most "
            f"{plan['new_tokens']:,} of replies{cost}; its time and memory are not known here"
        )
        lines += [f"{plan['model']}: {plan['error']}"] if plan["error"] else []
    return lines


def _encoded(spec: ModelSpec, task: Task) -> EncodedUnit:
    data = task.data
    return encode_unit(
        data.benchmark,
        data.docs,
        data.shots,
        None,
        max_length=0,
        chat_template=spec.chat_template,
        fewshot_as_turns=spec.fewshot_as_turns,
        system=spec.system,
        thinking=spec.thinking,
        who=spec.name,
    )


def _add(plan: CallPlan, encoded: EncodedUnit) -> None:
    prompts = [*encoded.prompts, *(one.prompt for doc in encoded.requests for one in doc if one.prompt)]
    plan.calls += len(prompts)
    plan.prompt_tokens += sum(map(_tokens, prompts))
    plan.new_tokens += sum(one.max_new_tokens for one in encoded.generations) or len(prompts)


def _tokens(prompt: Prompt) -> int:
    text = prompt.text + "".join(content for _, content in prompt.messages)
    return math.ceil(len(text.encode()) / BYTES_A_TOKEN)
