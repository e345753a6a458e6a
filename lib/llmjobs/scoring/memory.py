"""Out of memory: telling it from other errors, and giving back what can be given back."""

import gc

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an allocation failed, on any device; the CPU allocator's error has no type of its own."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text


def free_memory() -> None:
    """Collect what nothing refers to and hand cached device memory back."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
