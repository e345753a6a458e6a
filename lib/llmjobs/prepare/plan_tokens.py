"""How many tokens a unit has, how many of them are computed, and what a server would be asked. Counts are cached."""

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from os.path import commonprefix
from pathlib import Path
from typing import Any

from llmjobs import file_operations
from llmjobs.benchmarks.prompting import EncodedUnit, encode_unit
from llmjobs.benchmarks.scoring_requests import Prompt
from llmjobs.calls.spending import BYTES_A_TOKEN
from llmjobs.engines.batches import plan_unit
from llmjobs.engines.locate import Located
from llmjobs.engines.protocol import prefix_token_id
from llmjobs.engines.registry import engine_of
from llmjobs.engines.trial_cache import cache_folder
from llmjobs.errors import LlmjobsError, RunFolderError
from llmjobs.eval.job import DOCS_A_STEP
from llmjobs.eval.tasks import Task, make_spending
from llmjobs.manifest import EvalSection, ModelSpec

VERSION = 4
"""Version of the counting; another version does not use this one's cache."""
ROWS_AT_ONCE = 16


@dataclass(frozen=True)
class TokenCount:
    """A unit's tokens; generated ones are the maximum that the benchmark allows."""

    questions: int
    total_tokens: int
    """Tokens of distinct inputs, run one by one."""
    distinct_tokens: int
    """Tokens that the plan computes; shared beginnings count once."""
    peak_cache_tokens: int
    batches: int
    prefix_tokens: int
    """Tokens that are kept between batches."""
    scored_rows: int
    """Positions whose logits are read."""
    new_tokens: int = 0
    """Maximum of generated tokens over all questions."""
    decode_steps: int = 0
    """Forward passes that generate them, with rows side by side."""
    refused: int = 0
    prefixes: int = 0
    """Passes that compute what is kept between batches."""
    largest_pass: int = 0
    """Tokens of the largest pass: a batch, or what is kept between batches."""
    encode_s: float = 0.0
    """Seconds to encode and plan the unit here; a run does the same."""


class TokenCounter:
    """Counts tokens for one model; its tokenizer is only loaded if the cache lacks the count."""

    def __init__(self, spec: ModelSpec, located: Located, batch_tokens: int) -> None:
        self.spec, self.located, self.batch_tokens = spec, located, batch_tokens

    def count(self, task: Task) -> TokenCount:
        """Count one unit.

        Raises:
            LlmjobsError: the tokenizer cannot be loaded, or a row does not have its benchmark's format.

        """
        path = self._path(task)
        if known := _read(path):
            return known
        began = time.monotonic()
        counted = self._counted(task)
        counted = replace(counted, encode_s=round(time.monotonic() - began, 3))
        with contextlib.suppress(OSError, RunFolderError):
            file_operations.make_folder(path.parent)
            file_operations.write_whole(path, json.dumps(asdict(counted)).encode())
        return counted

    @cached_property
    def _tokenizer(self) -> Any:
        return engine_of(self.spec).load_tokenizer(self.spec, self.located)

    @cached_property
    def max_length(self) -> int:
        """Longest input of the model in tokens, from its files."""
        return engine_of(self.spec).context_length(self.spec, self.located)

    def _counted(self, task: Task) -> TokenCount:
        spec, data = self.spec, task.data
        encoded = encode_unit(
            data.benchmark,
            data.docs,
            data.shots,
            self._tokenizer,
            max_length=self.max_length,
            chat_template=spec.chat_template,
            fewshot_as_turns=spec.fewshot_as_turns,
            system=spec.system,
            thinking=spec.thinking,
            who=spec.name,
        )
        if data.benchmark.output_type(data.subject) == "generate_until":
            return _generated(encoded)
        plan = plan_unit(
            encoded.requests,
            max_length=self.max_length,
            batch_tokens=self.batch_tokens,
            prefix_token_id=prefix_token_id(self._tokenizer),
        )
        return TokenCount(
            questions=len(data.docs),
            total_tokens=plan.total_tokens,
            distinct_tokens=plan.distinct_tokens,
            peak_cache_tokens=plan.peak_cache_tokens,
            batches=len(plan.batches),
            prefix_tokens=sum(len(one.tokens) for one in plan.prefixes),
            scored_rows=sum(len({r for one in batch.readings for r in one.rows}) for batch in plan.batches),
            refused=len(plan.refused),
            prefixes=len(plan.prefixes),
            largest_pass=plan.largest_pass,
        )

    def _path(self, task: Task) -> Path:
        declared = dict(task.unit(0).declared)
        asked = {key: declared[key] for key in declared if not key.endswith("_asked") and key != "seed"}
        asked["thinking"] = declared["thinking_asked"]  # changes the prompts and the room of a reply
        key: Mapping[str, Any] = {
            "version": VERSION,
            "tokenizer": [self.located.source, self.located.revision],
            "batch_tokens": self.batch_tokens,
            **asked,
        }
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
        return cache_folder() / "tokens" / f"{digest}.json"


def _generated(encoded: EncodedUnit) -> TokenCount:
    lengths = [len(context) for context in encoded.contexts]
    most = [generation.max_new_tokens for generation in encoded.generations]
    steps = sum(
        max(most[at : at + ROWS_AT_ONCE], default=0) for at in range(0, len(most), min(ROWS_AT_ONCE, DOCS_A_STEP))
    )
    longest, rows = max(lengths, default=0), min(ROWS_AT_ONCE, len(lengths))
    shared = len(commonprefix(encoded.contexts))
    return TokenCount(
        questions=len(lengths),
        total_tokens=sum(lengths),
        distinct_tokens=sum(lengths),
        peak_cache_tokens=(longest + max(most, default=0)) * rows,
        batches=-(-len(lengths) // ROWS_AT_ONCE),
        prefix_tokens=0,
        scored_rows=len(lengths),
        new_tokens=sum(most),
        largest_pass=max(shared, (longest - shared) * rows),
        decode_steps=steps,
    )


def _read(path: Path) -> TokenCount | None:
    with contextlib.suppress(OSError, ValueError, TypeError):
        found = json.loads(path.read_bytes())
        counts = {f.name: int(found[f.name]) for f in fields(TokenCount) if f.name in found and f.name != "encode_s"}
        return replace(TokenCount(**counts), encode_s=float(found.get("encode_s", 0.0)))
    return None


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
