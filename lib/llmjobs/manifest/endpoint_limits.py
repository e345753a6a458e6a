"""Limits and prices of models behind a server: those of an eval, MT-Bench's agents and its judges."""

from typing import Annotated

from pydantic import Field

from llmjobs.manifest.fields import Section

Positive = Annotated[int, Field(ge=1, le=1 << 40)]


class Price(Section):
    """What an endpoint charges per million tokens, in the currency of `currency:`."""

    prompt: Annotated[float, Field(ge=0)]
    """Price of a million prompt tokens."""
    completion: Annotated[float, Field(ge=0)]
    """Price of a million generated tokens."""


class EndpointLimits(Section):
    """Limits and price of a model that is an endpoint."""

    concurrency: Annotated[int, Field(ge=1, le=256)] = 1
    """Number of parallel requests to an endpoint. After a kill, up to this many requests may be sent again."""
    requests_per_minute: Positive | None = None
    """The endpoint's rate limit. Requests wait until it allows them."""
    tokens_per_minute: Positive | None = None
    """The endpoint's rate limit in tokens, prompt and answer together."""
    price: Price | None = None
    """What the endpoint charges. Required for `spending: {cost: …}`."""


class SpendingLimit(Section):
    """Spending limit for all calls to endpoints in a run. It is checked before each call."""

    tokens: Positive | None = None
    """Maximum tokens, prompts and answers together. Default: no limit."""
    cost: Annotated[float, Field(gt=0)] | None = None
    """Maximum cost in `currency:`, computed from the prices. Every endpoint must have a price."""
