"""``mtbench:`` — agents, questions and judges of an MT-Bench."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from llmjobs.manifest.chat import Context, Seed, StrategyName
from llmjobs.manifest.fields import DataPath, FileName, OwnOrPath, QuestionsSource, Section, ShortText
from llmjobs.manifest.models import ModelSpec

Mode = Literal["single", "pairwise"]
History = Literal["on", "off", "both"]
Positive = Annotated[int, Field(ge=1, le=1 << 40)]


class Price(Section):
    """What an endpoint charges, in the currency of `currency:`, for a million tokens."""

    prompt: Annotated[float, Field(ge=0)]
    """For a million tokens of prompt."""
    completion: Annotated[float, Field(ge=0)]
    """For a million generated tokens."""


RULE_JUDGE = "llmjobs/rule-judge"
"""The judge that is no model (see ``mtbench.rule_judge``)."""


class JudgeSpec(ModelSpec):
    """A judge: a local model as under `models:`, or an endpoint by `endpoint`, `model` and `api_key_env`.

    `llmjobs/rule-judge` is no model: it compares words with the references, for the demo.
    """

    max_new_tokens: Annotated[int, Field(ge=1, le=1 << 16)] = 2048
    """Longest judgment in tokens."""
    temperature: Annotated[float, Field(ge=0, le=10)] = 0.0
    """0, as in MT-Bench, takes the likeliest token every time."""
    concurrency: Annotated[int, Field(ge=1, le=256)] = 1
    """Requests at one time to an endpoint; after a kill that many may be asked again."""
    requests_per_minute: Positive | None = None
    """Limit that the endpoint's owner set; requests wait for their turn."""
    tokens_per_minute: Positive | None = None
    """The same for tokens, prompt and answer together."""
    price: Price | None = None
    """What the endpoint charges; needed for `spending: {cost: …}`."""

    @property
    def is_rules(self) -> bool:
        """Whether it is the judge by rule: nothing is loaded or asked."""
        return self.id == RULE_JUDGE and not self.endpoint

    @model_validator(mode="before")
    @classmethod
    def _model_is_id(cls, value: Any) -> Any:
        """``model:`` is another word for ``id:``."""
        if isinstance(value, dict) and "model" in value and "id" not in value:
            value = {("id" if key == "model" else key): item for key, item in value.items()}
        return value

    @model_validator(mode="after")
    def _limits_are_for_endpoints(self) -> Self:
        for key in ("requests_per_minute", "tokens_per_minute", "price"):
            if getattr(self, key) is not None and not self.endpoint:
                raise ValueError(f"{key} is for an endpoint; add endpoint: or remove it")
        return self


class ImportedAnswers(Section):
    """Answers of somebody else's agent."""

    file: DataPath
    """A `model_answer` file in FastChat's JSONL form."""
    name: FileName = Field(default="", validate_default=False)
    """How results call the agent; the file's `model_id` when not given."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        """``- answers.jsonl`` is short for ``- file: …``."""
        return {"file": value} if isinstance(value, str) else value


class EndpointLimits(Section):
    """What one of the `models:` with an endpoint allows."""

    concurrency: Annotated[int, Field(ge=1, le=256)] = 1
    """Requests at one time; after a kill that many may be asked again."""
    requests_per_minute: Positive | None = None
    """Limit that the endpoint's owner set; requests wait for their turn."""
    tokens_per_minute: Positive | None = None
    """The same for tokens, prompt and answer together."""
    price: Price | None = None
    """What the endpoint charges; needed for `spending: {cost: …}`."""


class SpendingLimit(Section):
    """What all calls to endpoints of a run may take together; checked before each call."""

    tokens: Positive | None = None
    """Of prompts and answers together; no limit when not given."""
    cost: Annotated[float, Field(gt=0)] | None = None
    """In `currency:`, by the prices given; every endpoint then needs a price."""


class MTBenchSection(Section):
    """Two-turn questions, answered by agents and rated by judges."""

    questions: QuestionsSource = "own"
    """`own` (bundled), `demo` (bundled, in the words that the demo models know), a file in FastChat's form, or
    `hub:OWNER/DATASET`."""
    references: DataPath | None = None
    """A `reference_answer` file in FastChat's form."""
    reference_categories: list[ShortText] = Field(default=["reasoning", "math", "coding", "extraction"])
    """Where a judge is shown the reference, if there is one."""
    prompts: OwnOrPath = "own"
    """`own`, or a file in FastChat's `judge_prompts.jsonl` form."""
    categories: list[ShortText] | None = None
    """Only these categories; all when not given."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """First questions of each category only."""
    answers: list[ImportedAnswers] = Field(default_factory=list)
    """Agents whose answers are read from files, beside `models:`."""
    agents: Literal["models", "none"] = "models"
    """`none`: only imported answers and judgments; `models:` answers nothing here."""
    judgments: list[DataPath] = Field(default_factory=list)
    """`model_judgment` files in FastChat's form, shown beside the judges' own and compared with them."""
    votes: list[DataPath] = Field(default_factory=list)
    """Files of people's votes (`question_id`, `model_a`, `model_b`, `winner`, `turn`)."""
    judges: list[JudgeSpec] = Field(default_factory=list)
    """Who rates; several may. `judge:` is a list of one. Without any, answers are only collected."""
    modes: list[Mode] = Field(default=["single"], min_length=1)
    """`single` rates each answer from 1 to 10; `pairwise` compares two agents in both orders."""
    baseline: FileName | None = None
    """Pairwise against this agent only; all pairs when not given."""
    history: History = "on"
    """`off`: turn two is asked without turn one; `both`: each model answers once with and once without."""
    strategy: StrategyName = "full"
    """What the agents send when a conversation outgrows the context, as under `chat:`."""
    max_context: Context | None = None
    """Tokens of prompt and answer together; each model's own limit when not given."""
    system: str | None = None
    """System message of the agents."""
    max_new_tokens: Annotated[int, Field(ge=1, le=1 << 16)] = 1024
    """Longest answer in tokens."""
    temperatures: dict[str, Annotated[float, Field(ge=0, le=10)]] = Field(default_factory=dict)
    """By category, in place of MT-Bench's own (writing, roleplay .7; stem, humanities .1; else 0)."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Smallest set of tokens with that much probability, for the agents."""
    seed: Seed = 0
    """Of the random numbers; each question has its own from it."""
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    """CPU threads; `auto` takes the physical cores."""
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """Longest silence of an endpoint."""
    endpoints: dict[str, EndpointLimits] = Field(default_factory=dict)
    """Limits and prices of `models:` that are endpoints, by name."""
    spending: SpendingLimit = Field(default_factory=SpendingLimit)
    """What the paid calls of a run may take."""
    currency: ShortText = "USD"
    """Of the prices and of `spending: {cost: …}`; a name only, nothing is converted."""

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        """``judge:`` is a list of one; YAML reads ``on`` and ``off`` as truth values."""
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
            raise ValueError(f"judges: the name {twice!r} stands for two judges; give each a name: of its own")
        if self.agents == "none" and not self.answers and not self.judgments:
            raise ValueError("agents: none leaves nothing to do without answers: or judgments:; add one")
        free = [judge.name for judge in self.judges if judge.endpoint and not judge.price]
        if self.spending.cost is not None and free:
            raise ValueError(f"spending.cost needs a price: of every endpoint; judge {free[0]!r} has none")
        return self
