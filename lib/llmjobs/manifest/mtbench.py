"""``mtbench:`` — agents, questions and judges of an MT-Bench."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from llmjobs.manifest.chat import Context, Seed, StrategyName
from llmjobs.manifest.endpoint_limits import EndpointLimits, SpendingLimit
from llmjobs.manifest.fields import DataPath, FileName, OwnOrPath, QuestionsSource, Section, ShortText
from llmjobs.manifest.models import ModelSpec

Mode = Literal["single", "pairwise"]
History = Literal["on", "off", "both"]


RULE_JUDGE = "llmjobs/rule-judge"
"""The judge that is not a model (see ``mtbench.judging``)."""


class JudgeSpec(EndpointLimits, ModelSpec):
    """A judge: a local model as under `models:`, or an endpoint, given by `endpoint`, `model` and `api_key_env`.

    `llmjobs/rule-judge` is not a model. It compares words with the references and exists for the demo.
    """

    max_new_tokens: Annotated[int, Field(ge=1, le=1 << 16)] = 2048
    """Maximum tokens of a judgment."""
    temperature: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Sampling temperature. 0, as in MT-Bench, always takes the most likely token."""

    @property
    def is_rules(self) -> bool:
        """Whether it is the rule-based judge, which loads and calls nothing."""
        return self.id == RULE_JUDGE and not self.endpoint

    @model_validator(mode="before")
    @classmethod
    def _model_is_id(cls, value: Any) -> Any:
        """``model:`` is an alias for ``id:``."""
        if isinstance(value, dict) and "model" in value and "id" not in value:
            value = {("id" if key == "model" else key): item for key, item in value.items()}
        return value

    @model_validator(mode="after")
    def _limits_are_for_endpoints(self) -> Self:
        for key in ("requests_per_minute", "tokens_per_minute", "price"):
            if getattr(self, key) is not None and not self.endpoint:
                raise ValueError(f"{key} only applies to endpoints; add endpoint: or remove this key")
        return self


class ImportedAnswers(Section):
    """Answers of another agent, read from a file."""

    file: DataPath
    """A `model_answer` file in FastChat's JSONL format."""
    name: FileName = Field(default="", validate_default=False)
    """Name of the agent in the results. Default: the file's `model_id`."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        """``- answers.jsonl`` is short for ``- file: …``."""
        return {"file": value} if isinstance(value, str) else value


class MTBenchSection(Section):
    """Two-turn questions, answered by agents and rated by judges."""

    questions: QuestionsSource = "own"
    """`own` (bundled), `demo` (bundled, in words that the demo models know), a file in FastChat's format, or
    `hub:OWNER/DATASET`."""
    references: DataPath | None = None
    """A `reference_answer` file in FastChat's format."""
    reference_categories: list[ShortText] = Field(default=["reasoning", "math", "coding", "extraction"])
    """Categories in which the judge sees the reference answer, if there is one."""
    prompts: OwnOrPath = "own"
    """`own`, or a file in FastChat's `judge_prompts.jsonl` format."""
    categories: list[ShortText] | None = None
    """Use only these categories. Default: all."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Use only the first N questions of each category."""
    answers: list[ImportedAnswers] = Field(default_factory=list)
    """Files with answers of other agents, to judge in addition to `models:`."""
    agents: Literal["models", "none"] = "models"
    """`none` uses only imported answers and judgments; the models of `models:` do not answer."""
    judgments: list[DataPath] = Field(default_factory=list)
    """`model_judgment` files in FastChat's format. They are shown beside the judges' own ratings and compared with
    them."""
    votes: list[DataPath] = Field(default_factory=list)
    """Files with human votes (`question_id`, `model_a`, `model_b`, `winner`, `turn`)."""
    judges: list[JudgeSpec] = Field(default_factory=list)
    """One or more judges; `judge:` takes a single one. Without judges, answers are collected but not rated."""
    modes: list[Mode] = Field(default=["single"], min_length=1)
    """`single` rates each answer from 1 to 10; `pairwise` compares two agents, in both orders."""
    baseline: FileName | None = None
    """In pairwise mode, compare every agent with this one only. Default: compare all pairs."""
    history: History = "on"
    """`off` asks the second turn without the first; `both` lets each model answer once with and once without it."""
    strategy: StrategyName = "full"
    """What the agents send when a conversation no longer fits the context, as under `chat:`."""
    max_context: Context | None = None
    """Maximum tokens of prompt and answer together. Default: each model's own limit."""
    system: str | None = None
    """System message for the agents."""
    max_new_tokens: Annotated[int, Field(ge=1, le=1 << 16)] = 1024
    """Maximum tokens of an answer."""
    temperatures: dict[str, Annotated[float, Field(ge=0, le=10)]] = Field(default_factory=dict)
    """Temperature per category. Default: MT-Bench's own (writing, roleplay .7; stem, humanities .1; else 0)."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """For the agents: sample from the smallest set of tokens whose probability reaches this value."""
    seed: Seed = 0
    """Random seed; each question derives its own from it."""
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    """CPU threads. `auto` uses the physical cores."""
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """How long to wait for an endpoint that sends no text, in seconds."""
    endpoints: dict[str, EndpointLimits] = Field(default_factory=dict)
    """Limits and prices, by name, of the models of `models:` that are endpoints."""
    spending: SpendingLimit = Field(default_factory=SpendingLimit)
    """Spending limit for the paid calls of a run."""
    currency: ShortText = "USD"
    """Currency of the prices and of `spending: {cost: …}`. It is only a label; nothing is converted."""

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        """``judge:`` is short for a list with one judge; YAML reads ``on`` and ``off`` as booleans."""
        if not isinstance(value, dict):
            return value
        value = dict(value)
        if "judge" in value and "judges" not in value:
            judge = value.pop("judge")
            value["judges"] = judge if isinstance(judge, list) else [judge]
        if isinstance(value.get("history"), bool):
            value["history"] = "on" if value["history"] else "off"
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [judge.name.lower() for judge in self.judges]
        if twice := next((judge.name for judge in self.judges if names.count(judge.name.lower()) > 1), None):
            raise ValueError(f"judges: the name {twice!r} is used for two judges; set a different name: for each")
        if self.agents == "none" and not self.answers and not self.judgments:
            raise ValueError(
                "with agents: none, there is nothing to do unless answers: or judgments: is set; add one of them"
            )
        free = [judge.name for judge in self.judges if judge.endpoint and not judge.price]
        if self.spending.cost is not None and free:
            raise ValueError(f"spending.cost needs a price: of every endpoint; judge {free[0]!r} has none")
        return self
