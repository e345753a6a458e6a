"""What an mtbench run would do and cost, before anything is asked: calls, tokens, price.

Tokens are estimates, usually on the high side: three bytes a token for what is sent, the longest allowed answer for
what comes back, an answer of that length in every judge's prompt. A judgment that has to be asked again is not counted.
The spending limit does not rest on these estimates (see ``mtbench.limits``).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmjobs.chat.endpoint import BYTES_A_TOKEN
from llmjobs.jobs.mtbench_job import account, make_spending
from llmjobs.jobs.mtbench_retry import failed_calls, is_endpoint
from llmjobs.jobs.mtbench_tasks import AgentTask, Bench, JudgeTask, make_bench
from llmjobs.jobs.revisions import Revisions
from llmjobs.manifest import Manifest
from llmjobs.mtbench.limits import Rate
from llmjobs.runfolder.folder import RunFolder
from llmjobs.runner.cursor import progress_of

Figures = dict[str, Any]


@dataclass(frozen=True)
class Estimate:
    """Calls and about how many tokens they take."""

    calls: int
    prompt_tokens: int
    new_tokens: int


def plan(study: Manifest, folder: RunFolder) -> list[Figures]:
    """One row a unit: what would run, what is done, about how many tokens and what cost (None without a price)."""
    bench = make_bench(study, Revisions.of(folder, writes=False))
    rates = make_spending(study).rates
    rows = []
    for path, task in bench.tasks.items():
        estimate = _answers(bench, task) if isinstance(task, AgentTask) else _judgments(bench, task)
        rate = rates.get(task.name if isinstance(task, AgentTask) else account(task.judge))
        rows.append(
            {
                "unit": path,
                "state": task.error or _state(folder, path, task),
                "endpoint": is_endpoint(task),
                "calls": estimate.calls,
                "prompt_tokens": estimate.prompt_tokens,
                "new_tokens": estimate.new_tokens,
                "cost": _cost(rate, estimate),
            }
        )
    return rows


def render_plan(study: Manifest, rows: list[Figures]) -> str:
    """The plan for the terminal: a line a unit, then what the endpoints would take together."""
    assert study.mtbench is not None
    currency = study.mtbench.currency
    lines = [_line(row, currency) for row in rows]
    paid = [row for row in rows if row["endpoint"]]
    if paid:
        tokens = sum(row["prompt_tokens"] + row["new_tokens"] for row in paid)
        known = [row["cost"] for row in paid if row["cost"] is not None]
        cost = f", {sum(known):.2f} {currency}" if known else ""
        without = ", and what has no price" if known and len(known) < len(paid) else ""
        calls = sum(row["calls"] for row in paid)
        lines.append(f"endpoints together: {calls:,} calls, about {tokens:,} tokens{cost}{without}")
    return "\n".join(lines)


def _state(folder: RunFolder, path: str, task: AgentTask | JudgeTask) -> str:
    failed = len(failed_calls(folder, task))
    return progress_of(folder, path, task.declared) + (f", {failed} failed, to be asked again" if failed else "")


def _line(row: Mapping[str, Any], currency: str) -> str:
    if not row["calls"]:
        return f"{row['unit']}  read from a file  {row['state']}"
    cost = f", {row['cost']:.2f} {currency}" if row["cost"] is not None else ""
    tokens = row["prompt_tokens"] + row["new_tokens"]
    return f"{row['unit']}  {row['calls']:,} calls, about {tokens:,} tokens{cost}  {row['state']}"


def _tokens(text: str) -> int:
    return math.ceil(len(text.encode()) / BYTES_A_TOKEN)


def _answers(bench: Bench, task: AgentTask) -> Estimate:
    if task.spec is None:
        return Estimate(0, 0, 0)
    longest, prompt = bench.section.max_new_tokens, 0
    for question in bench.questions:
        sent = 0
        for turn, text in enumerate(question.turns):
            sent += _tokens(text) + (longest if turn and task.history else 0)
            prompt += sent if task.history else _tokens(text)
    calls = sum(len(question.turns) for question in bench.questions)
    return Estimate(calls, prompt, calls * longest)


def _judgments(bench: Bench, task: JudgeTask) -> Estimate:
    orders, sides = (1, 1) if task.mode == "single" else (2, 2)
    prompt = calls = 0
    for question, turn in bench.turns():
        chosen = bench.prompts.choose(task.mode, with_reference=bench.has_reference(question, turn), turn=turn)
        shown = [*question.turns[:turn], *(question.reference or ())[:turn], chosen.system, chosen.template]
        answers = sides * turn * bench.section.max_new_tokens
        prompt += orders * (sum(map(_tokens, shown)) + answers)
        calls += orders
    return Estimate(calls, prompt, calls * task.judge.max_new_tokens)


def _cost(rate: Rate | None, estimate: Estimate) -> float | None:
    return round(rate.cost(estimate.prompt_tokens, estimate.new_tokens), 4) if rate else None
