"""Write GGUF files: of any header, and of Llamas in transformers' form; quantize them by llama.cpp."""

from pathlib import Path
from typing import Any

from llmjobs.engines.llama_cpp import demo_files
from llmjobs.engines.llama_cpp.demo_files import quantize, renamed, write_gguf

__all__ = ["quantize", "renamed", "write_gguf", "write_llama"]


def write_llama(folder: Path, path: Path, *, pre: str | None = "gpt-2", **metadata: Any) -> Path:
    """Write a Llama as an F32 GGUF file; see ``demo_files.write_llama``."""
    return demo_files.write_llama(folder, path, pre=pre, **metadata)
