"""A GGUF file's weights in llama.cpp's memory, and why it refuses a file."""

import re
from pathlib import Path
from typing import Any

from llmjobs.engines.llama_cpp.library import LOG, library
from llmjobs.errors import ModelError


def load_weights(who: str, path: Path, layers_on_gpu: int, *, special: bool = True) -> Any:
    """Load a file whose header was checked; return llama.cpp's model.

    Without ``special``, the weights stay as in the file, for kernels that run on any processor.

    Raises:
        ModelError: llama.cpp refuses it.

    """
    api = library()
    parameters = api.llama_model_default_params()
    parameters.n_gpu_layers = layers_on_gpu
    parameters.use_extra_bufts = special
    LOG.clear()
    model = api.llama_model_load_from_file(str(path).encode(), parameters)
    if not model:
        raise ModelError(f"{who}: llama.cpp cannot load {path.name}: {refusal()}")
    return model


def vocabulary_of(model: Any) -> int:
    """Number of tokens in the logits of a loaded model."""
    api = library()
    return int(api.llama_vocab_n_tokens(api.llama_model_get_vocab(model)))


def refusal() -> str:
    """Why llama.cpp refused, from its log."""
    lines = (re.sub(r"^(error loading model(\s\w+)?: )+", "", line) for line in LOG.errors())
    reason = "; ".join([line for line in lines if line != "failed to load model"][:2]) or "it gave no reason"
    if "unknown model architecture" in reason or "unknown pre-tokenizer" in reason:
        return f"{reason}; a newer llama-cpp-python may know it"
    return f"{reason}; fetch the file again, or use another one"
