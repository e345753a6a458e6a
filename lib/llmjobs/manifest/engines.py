"""The engines that a manifest may name, and the module of each; ``llmjobs.engines.registry`` imports it when used."""

ENGINES: dict[str, str] = {"transformers": "llmjobs.engines.transformers.engine"}
"""Name in a manifest → module with the functions of ``llmjobs.engines.protocol.EngineModule``."""


def engine_names() -> list[str]:
    """What ``engine:`` allows."""
    return ["auto", *ENGINES]


def engine_name(wanted: str, model_id: str) -> str:
    """The engine that runs a model; ``auto`` chooses by its id."""
    return "transformers" if wanted == "auto" else wanted
