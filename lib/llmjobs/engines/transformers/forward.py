"""One forward of a causal language model, with logits only at the rows that are scored."""

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn

from llmjobs.engines.transformers.device import is_out_of_memory
from llmjobs.engines.transformers.packed_attention import NAME, KeysValues, Layout, Run, running
from llmjobs.errors import LlmjobsError, ModelError, plain_reason

Model = Any
"""The type that ``AutoModelForCausalLM`` returns; transformers' own types are less specific."""


class PackedForward:
    """Runs layouts: many segments packed into one row of tokens, without padding."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.windows: set[int] = set()
        self._configs = _configs(model)

    @staticmethod
    def refuses(model: Model) -> str | None:
        """Return why a model cannot be packed, or None; the probe finds what this cannot know."""
        if "position_ids" not in accepted_arguments(model):
            return f"{type(model).__name__} takes no position_ids"
        kinds = {kind for config in _configs(model) for kind in getattr(config, "layer_types", None) or ()}
        unknown = kinds - {"full_attention", "sliding_attention"}
        if unknown:
            return f"layers of kind {', '.join(sorted(unknown))}"
        return None

    def logits(self, layout: Layout, rows: Sequence[int], kept: dict[int, KeysValues]) -> Tensor:
        """Return logits [len(rows), vocabulary] of the packed ``rows``."""
        with _only_rows(self.model, self._tensor(rows)):
            output, _ = self._run(layout, kept, keep=False)
        logits: Tensor = output.logits
        return logits.flatten(0, -2)

    def keys_values(self, layout: Layout, kept: dict[int, KeysValues]) -> KeysValues:
        """Run a prefix to get the keys and values that its attention modules see."""
        with _only_rows(self.model, self._tensor([len(layout.tokens) - 1])):
            _, run = self._run(layout, kept, keep=True)
        return run.produced

    def _run(self, layout: Layout, kept: dict[int, KeysValues], keep: bool) -> tuple[Any, Run]:
        tokens, positions = self._tensor(layout.tokens), self._tensor(layout.positions)
        run = Run(layout, positions, kept, keep)
        with torch.inference_mode(), running(run), self._attention():
            output = self.model(input_ids=tokens[None], position_ids=positions[None], use_cache=False)
        if not run.calls:
            raise RuntimeError("the model does not use transformers' AttentionInterface")
        self.windows |= run.windows
        return output, run

    def _tensor(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self.model.device)

    @contextmanager
    def _attention(self) -> Iterator[None]:
        """Switch every config's attention for one forward only, because others may use the model in between."""
        before = [config._attn_implementation for config in self._configs]
        try:
            for config in self._configs:
                config._attn_implementation = NAME
            yield
        finally:
            for config, name in zip(self._configs, before, strict=True):
                config._attn_implementation = name


def pad_right(inputs: Sequence[Sequence[int]], pad_token_id: int) -> Tensor:
    """Return a grid [inputs, longest] of token ids."""
    grid = torch.full((len(inputs), max(map(len, inputs))), pad_token_id, dtype=torch.long)
    for at, tokens in enumerate(inputs):
        grid[at, : len(tokens)] = torch.tensor(tokens, dtype=torch.long)
    return grid


def padded_logits(model: Model, inputs: Sequence[Sequence[int]], cells: Sequence[int], pad_token_id: int) -> Tensor:
    """Run whole inputs padded on the right, without a mask (causal models never look right).

    ``cells`` count over the flattened grid [inputs, longest]; the result is [len(cells), vocabulary].
    """
    grid = pad_right(inputs, pad_token_id).to(model.device)
    with torch.inference_mode(), _only_rows(model, torch.tensor(cells, device=model.device)):
        logits: Tensor = model(input_ids=grid, use_cache=False).logits
    return logits.flatten(0, -2)


def cached_forward(model: Model, grid: Tensor, cells: Sequence[int], before: Any, cached: int) -> tuple[Tensor, Any]:
    """Run a grid [rows, longest] after ``cached`` tokens that all rows share; return logits and the new cache.

    ``before`` (None: nothing) has one row and stays unchanged: every row gets a copy. ``cells`` as above.
    """
    if before is not None:
        before = copy.deepcopy(before)
        before.batch_repeat_interleave(len(grid))
    name = cache_argument(model)
    if name is None:
        raise RuntimeError(f"{type(model).__name__} has no key-value cache")
    mask = torch.ones(len(grid), cached + grid.shape[1], dtype=torch.long, device=model.device)
    with torch.inference_mode(), _only_rows(model, torch.tensor(cells, device=model.device)):
        output = model(input_ids=grid.to(model.device), attention_mask=mask, use_cache=True, **{name: before})
    return output.logits.flatten(0, -2), getattr(output, name)


def accepted_arguments(model: Model) -> frozenset[str]:
    """Return the names of the arguments that a model's forward takes."""
    return _arguments_of(type(model).forward)


@cache
def _arguments_of(forward: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(forward).parameters)


def cache_argument(model: Model) -> str | None:
    """Return the name of forward's cache argument, None if it takes none.

    ``cache`` from transformers 5.24 on, ``past_key_values`` or ``cache_params`` before.
    """
    names = ("cache", "past_key_values", "cache_params")
    return next((name for name in names if name in accepted_arguments(model)), None)


@contextmanager
def _only_rows(model: Model, rows: Tensor) -> Iterator[None]:
    """Pass only ``rows`` of the flattened hidden states [tokens, hidden] to the output embedding."""
    head: nn.Module | None = model.get_output_embeddings()
    if head is None:
        raise RuntimeError(f"{type(model).__name__} has no output embedding")
    hook = head.register_forward_pre_hook(lambda _, args: (args[0].flatten(0, -2)[rows][None], *args[1:]))
    try:
        yield
    finally:
        hook.remove()


def _configs(model: Model) -> list[Any]:
    """Return every config object from which a module of the model reads its attention implementation."""
    found = {id(module.config): module.config for module in model.modules() if hasattr(module, "config")}
    return list(found.values())


class FailedPassError(ModelError):
    """A model's own code raised an exception in a forward pass; ``reason`` is that exception's text."""

    def __init__(self, who: str, kind: str, shape: str, error: Exception, remedy: str) -> None:
        """``kind`` is the model's class, ``shape`` says what it read."""
        self.reason = plain_reason(error, 200)
        super().__init__(f"{who}: {kind} failed in a forward pass{shape}: {self.reason}; {remedy}")


def guard_passes(who: str, model: Model, *, own_code: bool = False) -> None:
    """Turn whatever a forward pass of ``model`` raises into one line; errors of memory stay as they are.

    A foreign model's code may raise anything: shapes that do not fit, a position beyond a table, an operation that the
    device lacks. ``own_code``: the code comes with the checkpoint.
    """
    placed, kind, myself = vars(model).get("forward"), type(model).__name__, ref(model)
    whose = "its own code" if own_code else "the installed transformers"
    remedy = f"its config, its weights and {whose} may not fit together: update them, or use another model"

    def forward(*args: Any, **given: Any) -> Any:
        try:
            return placed(*args, **given) if placed else type(model_of()).forward(model_of(), *args, **given)
        except Exception as error:
            if isinstance(error, LlmjobsError) or is_out_of_memory(error):
                raise
            shape: tuple[int, ...] = getattr(given.get("input_ids", args[0] if args else None), "shape", ())
            read = f" over {shape[0]:,} × {shape[1]:,} tokens" if len(shape) == 2 else ""
            raise FailedPassError(who, kind, read, error, remedy) from error

    def model_of() -> Any:
        return myself()  # a strong reference would keep the model's memory until the next garbage collection

    forward.__signature__ = inspect.signature(model.forward)  # type: ignore[attr-defined]
    model.forward = forward
