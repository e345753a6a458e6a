"""From a manifest's model to something that answers."""

import datetime
import logging
from collections.abc import Callable

from llmjobs.chat.backend import Backend
from llmjobs.chat.endpoint import EndpointAddress, EndpointBackend, WholeAnswers
from llmjobs.chat.parameters import Parameters
from llmjobs.manifest.model_section import ModelSpec

log = logging.getLogger(__name__)


def open_backend(
    spec: ModelSpec,
    *,
    threads: int | str = "auto",
    timeout_s: float = 120.0,
    warn: Callable[[str], None] = log.warning,
    parameters: Parameters | None = None,
    whole: WholeAnswers | None = None,
    date: datetime.date | None = None,
) -> Backend:
    """Load ``spec`` here, or take its endpoint; ``parameters`` and ``whole`` are for an endpoint alone.

    ``date`` is today for the chat template of a model here.

    Raises:
        LlmjobsError: it cannot be loaded, or the endpoint's key is not in its variable.

    """
    if spec.endpoint:
        address = EndpointAddress(spec.endpoint, spec.id, spec.api_key_env)
        address.key()
        return EndpointBackend(
            address, name=spec.name, timeout_s=timeout_s, parameters=parameters, whole=whole, warn=warn
        )
    from transformers.utils import logging as transformers_logging

    from llmjobs.chat.local.backend import LocalBackend
    from llmjobs.models.device import set_threads
    from llmjobs.models.load import load_model

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    set_threads(threads)
    return LocalBackend(load_model(spec), warn=warn, date=date)
