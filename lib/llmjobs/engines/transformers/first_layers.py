"""Try something on a model's first layers, where a pass through all of them would take seconds.

Weights that are unpacked in each pass (4-bit and 8-bit on a CPU) or read from a disk make every pass slow, however few
tokens it reads. What a trial looks for (masks, positions, caches) is the same in every layer of a kind, so a few layers
that have every kind show it. A trial that fails on them is made again on the whole model, which has the last word.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import nn

from llmjobs.engines.transformers.forward import padded_logits

LONGEST_TRIAL_S = 4.0
"""A trial on the whole model that takes longer is made on the first layers, where it takes about half as long."""
FEWEST = 2
TRIED_TOKENS, TRIED_PASSES = 16, 4
"""A short trial: so many passes of so many tokens."""
_COUNTERS = frozenset({"layer_idx", "layer_id", "layer_index", "layer_number", "training"})
Found = TypeVar("Found")


def layers_of(model: Any) -> tuple[nn.Module, str, nn.ModuleList] | None:
    """Return the owner, the name and the list of a model's layers; None where there is not exactly one such list."""
    count = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    found = [
        (module, name, child)
        for module in model.modules()
        for name, child in module.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == count
    ]
    return found[0] if len(found) == 1 else None


def kinds_end(layers: nn.ModuleList) -> int:
    """Return after how many layers every kind has appeared: classes and settings of all parts, weights aside."""
    kinds = [_kind(layer) for layer in layers]
    return max(kinds.index(kind) for kind in set(kinds)) + 1


def _kind(layer: nn.Module) -> tuple[Any, ...]:
    """Settings of parts that have parts are compared; leaves (linear layers, norms) by their class and shape alone."""
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
    """Leave only the first ``count`` layers in the model, for the time of the block."""
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
    number of layers on which it takes half of that.
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
    except Exception:  # whatever a foreign model's code raises: its layers belong together
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
    """Return what a trial finds on the first ``count`` layers if that is good, else what it finds on all of them."""
    if count is not None:
        try:
            with first_layers(model, count):
                found = trial()
            if good(found):
                return found
        except Exception:  # whatever a foreign model's code raises: its layers belong together
            pass  # the whole model is tried
    return trial()
