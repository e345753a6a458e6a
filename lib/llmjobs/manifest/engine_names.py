"""The engines that a manifest may name, and the module of each; ``llmjobs.engines.registry`` imports it when used."""

import re
from pathlib import Path

ENGINES: dict[str, str] = {
    "transformers": "llmjobs.engines.transformers.engine",
    "llama.cpp": "llmjobs.engines.llama_cpp.engine",
    "vllm": "llmjobs.engines.vllm.engine",
    "endpoint": "llmjobs.engines.endpoint.engine",
}
"""Name in a manifest → module with the functions of ``llmjobs.engines.protocol.EngineModule``."""

PACKAGES: dict[str, tuple[str, str]] = {
    "llama.cpp": ("llama_cpp", "pip install 'llmjobs[gguf]' (docs/gguf.md)"),
    "vllm": ("vllm", "pip install 'llmjobs[vllm]' in a new environment (docs/vllm.md)"),
}
"""Engines that need an additional package: what is imported, and how to install it."""


def engine_names() -> list[str]:
    """What ``engine:`` allows."""
    return ["auto", *ENGINES]


def engine_name(wanted: str, model_id: str, endpoint: str | None = None) -> str:
    """The engine that runs a model; ``auto`` chooses by its id, and a server's address comes first."""
    if endpoint:
        return "endpoint"
    if wanted != "auto":
        return wanted
    return "llama.cpp" if is_gguf(model_id) else "transformers"


def is_gguf(model_id: str) -> bool:
    """Whether an id names a GGUF file.

    ``FILE.gguf``, a repository ``…-GGUF``, ``OWNER/NAME:Q4_K_M``, ``FOLDER:Q4_K_M``, or a model in the store of Ollama
    or LM Studio.
    """
    folder, _, which = model_id.rpartition(":")
    if folder and which and Path(folder).expanduser().is_dir():
        return True
    return bool(_GGUF.search(model_id)) and not Path(model_id).expanduser().is_dir()


OLLAMA, LM_STUDIO = STORES = ("ollama:", "lmstudio:")
"""How the id of a GGUF file in the store of another program begins."""
_GGUF = re.compile(
    rf"\.gguf$|[-_.]gguf(:[^/]*)?$|^(hf\.co/)?[\w.-]+/[\w.-]+:[\w./ +-]+$|^({'|'.join(STORES)})", re.IGNORECASE
)
