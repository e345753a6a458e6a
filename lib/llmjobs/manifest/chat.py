"""``chat:`` — how the chat agent talks; ``converse:`` — which conversations are held with which memory."""

from typing import Annotated, Literal

from pydantic import Field

from llmjobs.manifest.fields import Section, ShortText

StrategyName = Literal["none", "full", "window", "summary", "retrieve", "hybrid"]
SetName = Literal["recall", "everyday", "written"]
Context = Annotated[int, Field(ge=16, le=1 << 24)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]


class ChatSection(Section):
    """The chat agent, in the terminal and behind `llmjobs serve`."""

    system: str | None = None
    """System message, pinned under every strategy."""
    strategy: StrategyName = "full"
    """What is sent when the conversation outgrows the context."""
    history: bool = True
    """Off: every message is answered without the turns before it."""
    max_context: Context | None = None
    """Tokens of prompt and answer together; the model's own limit when not given."""
    max_new_tokens: Annotated[int, Field(ge=1, le=1 << 20)] = 256
    """Longest answer in tokens; its room is reserved, at most half of the context."""
    temperature: Annotated[float, Field(ge=0, le=10)] = 0.0
    """0 takes the likeliest token every time."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Smallest set of tokens with that much probability."""
    seed: Seed = 0
    """Of the random numbers; matters where `temperature` is above 0."""


class ConverseSection(Section):
    """Scripted conversations with history and without, under each strategy and context size."""

    models: list[ShortText] | None = None
    """Names of the models that talk; all when not given."""
    sets: list[SetName] = Field(default=["recall"], min_length=1)
    """`recall` in the demo models' words, `everyday` by rule for any model, `written` by hand."""
    conversations: Annotated[int, Field(ge=1, le=100_000)] = 24
    """Conversations of each set."""
    distances: list[Annotated[int, Field(ge=1, le=30)]] = Field(default=[1, 2, 4, 8, 16, 30], min_length=1)
    """Turns between telling and asking, taken in turn."""
    strategies: list[StrategyName] = Field(
        default=["none", "full", "window", "summary", "retrieve", "hybrid"], min_length=1
    )
    """`none` is history off; `none` and `full` run once, at the model's own limit, the others at each context."""
    contexts: list[Context] = Field(default=[128, 256], min_length=1)
    """Context sizes in tokens, the answer's room included."""
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 32
    """Longest answer in tokens."""
    temperature: Annotated[float, Field(ge=0, le=10)] = 0.0
    """0 takes the likeliest token every time."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Smallest set of tokens with that much probability."""
    seed: Seed = 0
    """Of the conversations and of the sampling."""
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    """CPU threads; `auto` takes the physical cores."""
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """Longest silence of an endpoint."""
