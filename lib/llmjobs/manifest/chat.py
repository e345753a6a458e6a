"""``chat:`` — how the chat agent talks; ``converse:`` — which conversations are held with which memory."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from llmjobs.extensions import STRATEGIES
from llmjobs.manifest.fields import Section, ShortText

if TYPE_CHECKING:
    StrategyName = str
else:
    StrategyName = Literal[tuple(STRATEGIES)]
SetName = Literal["recall", "everyday", "written"]
Context = Annotated[int, Field(ge=16, le=1 << 24)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]


class ChatSection(Section):
    """The chat agent, in the terminal and behind `llmjobs serve`."""

    system: str | None = None
    """System message. Every strategy keeps it."""
    strategy: StrategyName = "full"
    """What to send when the conversation no longer fits the context."""
    history: bool = True
    """If false, each message is answered without the earlier turns."""
    max_context: Context | None = None
    """Maximum tokens of prompt and answer together. Default: the model's own limit."""
    max_new_tokens: Annotated[int, Field(ge=1, le=1 << 20)] = 256
    """Maximum tokens of an answer. This room is reserved in the context, up to half of it."""
    temperature: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Sampling temperature. 0 always takes the most likely token."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Sample from the smallest set of tokens whose probability reaches this value (nucleus sampling)."""
    seed: Seed = 0
    """Random seed; only used when `temperature` is above 0."""


class ConverseSection(Section):
    """Scripted conversations with and without history, for each strategy and context size."""

    models: list[ShortText] | None = None
    """Names of the models that take part. Default: all."""
    sets: list[SetName] = Field(default=["recall"], min_length=1)
    """`recall`: generated, in words that the demo models know. `everyday`: generated, for any model. `written`: written
    by hand."""
    conversations: Annotated[int, Field(ge=1, le=100_000)] = 24
    """Number of conversations in each set."""
    distances: list[Annotated[int, Field(ge=1, le=30)]] = Field(default=[1, 2, 4, 8, 16, 30], min_length=1)
    """Number of turns between stating a fact and asking for it. Conversations take these values in turn."""
    strategies: list[StrategyName] = Field(default=list(STRATEGIES), min_length=1)
    """Strategies to compare. `none` turns the history off. `none` and `full` run once, at the model's own limit; the
    others run at each context size."""
    contexts: list[Context] = Field(default=[128, 256], min_length=1)
    """Context sizes in tokens, including the room for the answer."""
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 32
    """Maximum tokens of an answer."""
    temperature: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Sampling temperature. 0 always takes the most likely token."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Sample from the smallest set of tokens whose probability reaches this value (nucleus sampling)."""
    seed: Seed = 0
    """Random seed for the conversations and for sampling."""
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    """CPU threads. `auto` uses the physical cores."""
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """How long to wait for an endpoint that sends no text, in seconds."""
