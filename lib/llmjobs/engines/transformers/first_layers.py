"""Run a trial on a model's first layers if a pass through all of them would take seconds.

Weights that are unpacked in each pass (4-bit and 8-bit on a CPU) or read from a disk make every pass slow, however few
tokens it reads. What a trial checks (masks, positions, caches) is the same in all layers of a kind, so a few layers
that include every kind are enough. If a trial fails on them, it is repeated on the whole model, whose result counts.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import nn

from llmjobs.engines.transformers.forward import padded_logits

LONGEST_TRIAL_S = 4.0
"""A trial that takes longer on the whole model is run on the first layers, where it takes about half as long."""
FEWEST = 2
TRIED_TOKENS, TRIED_PASSES = 16, 4
"""A short trial: number of passes and of tokens per pass."""
_COUNTERS = frozenset({"layer_idx", "layer_id", "layer_index", "layer_number", "training"})
Found = TypeVar("Found")


def layers_of(model: Any) -> tuple[nn.Module, str, nn.ModuleList] | None:
    """Return the owner, the name and the list of a model's layers; None unless there is exactly one such list."""
    count = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    found = [
        (module, name, child)
        for module in model.modules()
        for name, child in module.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == count
    ]
    return found[0] if len(found) == 1 else None


def kinds_end(layers: nn.ModuleList) -> int:
    """Return after how many layers every kind has appeared, by class and settings of all parts, not by weights."""
    kinds = [_kind(layer) for layer in layers]
    return max(kinds.index(kind) for kind in set(kinds)) + 1


def _kind(layer: nn.Module) -> tuple[Any, ...]:
    """Compare the settings of modules with children; leaves (linear layers, norms) only by class and shape."""
    return tuple(
        (
            name,
            type(part).__qualname__,
            tuple(sorted((key, repr(value)) for key, value in vars(part).items() if _is_setting(key, value)))
            if name == "" or next(part.children(), None) is not None
            else tuple(getattr(part, key, None) for key in ("in_features", "out_features")),
        )
        for name, part in layer.named_modules()
    )


def _is_setting(key: str, value: Any) -> bool:
    return key not in _COUNTERS and not key.startswith("_") and isinstance(value, bool | int | float | str | None)


@contextmanager
def first_layers(model: Any, count: int) -> Iterator[None]:
    """Leave only the first ``count`` layers in the model, within the block."""
    found = layers_of(model)
    if found is None or count >= len(found[2]):
        yield
        return
    owner, name, layers = found
    setattr(owner, name, nn.ModuleList(list(layers)[:count]))
    try:
        yield
    finally:
        setattr(owner, name, layers)


def enough_layers(
    model: Any,
    *,
    tokens: int = TRIED_TOKENS,
    passes: float = TRIED_PASSES,
    longest_s: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> int | None:
    """Return how many layers a trial needs; None if the whole model is quick enough, or all layers are needed.

    The trial makes about ``passes`` passes of ``tokens`` tokens. One such pass through the fewest layers is timed. If
    the trial would take longer than ``longest_s`` (:data:`LONGEST_TRIAL_S`) on the whole model, the result is the
    number of layers on which it takes half of that time.
    """
    slow_s = (LONGEST_TRIAL_S if longest_s is None else longest_s) / passes
    found = layers_of(model)
    if found is None:
        return None
    whole = len(found[2])
    fewest = max(FEWEST, kinds_end(found[2]))
    if fewest >= whole:
        return None
    try:
        begun = clock()
        with first_layers(model, fewest):
            pass_of(model, tokens)
        layer_s = (clock() - begun) / fewest
    except Exception:  # a foreign model's code may raise anything: its layers belong together
        return None
    if layer_s * whole <= slow_s:
        return None
    count = max(fewest, int(slow_s / 2 / layer_s))
    return count if count < whole else None


def pass_of(model: Any, tokens: int) -> None:
    """Run one row of made-up tokens, and wait for it."""
    vocabulary = int(model.config.get_text_config().vocab_size)
    padded_logits(model, [[at % max(vocabulary // 2, 1) for at in range(tokens)]], [tokens - 1], 0).max().item()


def try_on(model: Any, count: int | None, trial: Callable[[], Found], good: Callable[[Found], bool]) -> Found:
    """Return the result of a trial on the first ``count`` layers if that is good, otherwise on all of them."""
    if count is not None:
        try:
            with first_layers(model, count):
                found = trial()
            if good(found):
                return found
        except Exception:  # a foreign model's code may raise anything: its layers belong together
            pass  # the whole model is tried next
    return trial()
