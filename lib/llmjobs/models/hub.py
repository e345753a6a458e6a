"""What loading a model needs of the hub."""

from llmjobs.hub.explain import explain
from llmjobs.hub.files import ensure_model
from llmjobs.hub.repositories import resolve_model

__all__ = ["ensure_model", "explain", "resolve_model"]
