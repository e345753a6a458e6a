"""Open what answers in a chat: a model on this machine, on any engine, or a server."""

import copy
import datetime
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, Self

from llmjobs.calls.client import EndpointAddress, WholeAnswers
from llmjobs.calls.refused_parameters import Parameters
from llmjobs.calls.spending import MinuteLimit, Spending
from llmjobs.chat.backend import Backend
from llmjobs.chat.endpoint_backend import EndpointBackend, PaidBackend
from llmjobs.chat.local_backend import LocalBackend
from llmjobs.clocks import measured
from llmjobs.engines.registry import open_model
from llmjobs.manifest.models import ModelSpec
from llmjobs.work.call_journal import CallJournal
from llmjobs.work.folder import RunFolder
from llmjobs.work.held_model import HeldModel

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
    """Load ``spec`` on this machine, or use its endpoint; ``parameters`` and ``whole`` only apply to an endpoint.

    ``date`` is the date that a local model's chat template prints.

    Raises:
        LlmjobsError: it cannot be loaded, or the endpoint's key is not in its variable.

    """
    if spec.endpoint:
        address = EndpointAddress(spec.endpoint, spec.id, spec.api_key_env)
        address.key()
        return EndpointBackend(
            address, name=spec.name, timeout_s=timeout_s, parameters=parameters, whole=whole, warn=warn
        )

    return LocalBackend(open_model(spec, threads=threads), warn=warn, date=date)


OpenBackend = Callable[[str], Backend]
"""A conversation's label → its backend."""


class UnitBackends:
    """Backends for the conversations of a job's units, one unit after the other.

    A model here stays loaded until a unit needs another one. The calls to an endpoint are written to the unit's journal
    before their answers are used, so that none is paid for twice; ``spending`` counts them.
    """

    def __init__(self, folder: RunFolder, spending: Spending, *, threads: int | str, timeout_s: float) -> None:
        """Nothing is opened yet; set ``date`` for chat templates that print it."""
        self.folder, self.spending, self.threads, self.timeout_s = folder, spending, threads, timeout_s
        self.date: datetime.date | None = None
        self._clear()

    def _clear(self) -> None:
        self._model: HeldModel[ModelSpec, Backend] = HeldModel()
        self._parameters: dict[tuple[str, str], Parameters] = {}
        self._minutes: dict[str, MinuteLimit] = {}

    def for_worker(self) -> Self:
        """A copy for another machine, without open models. Units that call an endpoint stay in the main process."""
        other = copy.copy(self)
        other._clear()
        del other.spending
        return other

    @contextmanager
    def open(
        self,
        spec: ModelSpec,
        path: str,
        *,
        account: str | None = None,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
    ) -> Iterator[tuple[OpenBackend, Mapping[str, Any]]]:
        """Open what answers the unit at ``path``; yields it with the times of opening it.

        ``account`` is the name under which calls to an endpoint are counted and limited (default: the model's name).

        Raises:
            LlmjobsError: it cannot be loaded, or the endpoint's key is not in its variable.

        """
        if not spec.endpoint:
            with measured() as span:
                local = self._local(spec)
            yield (lambda label: local), {**span.to_record(), "load_s": self._model.take_load_s(), "items": 0}
            return
        account = account or spec.name
        minute = self._minutes.setdefault(account, MinuteLimit(requests_per_minute, tokens_per_minute))
        with measured() as span:
            open_backend(spec, timeout_s=self.timeout_s).close()
        with closing(CallJournal(self.folder.path / path)) as journal:
            opening = {**span.to_record(), "load_s": None, "items": 0}
            yield self._paid(spec, journal, account, minute), opening

    def close(self) -> None:
        """Free the model."""
        self._model.close()

    def _local(self, spec: ModelSpec) -> Backend:
        plain = ModelSpec.model_validate(spec.model_dump(include=set(ModelSpec.model_fields)))
        nameless = plain.model_copy(update={"name": "model"})  # a judge may be the same model as an agent
        return self._model.get(
            nameless, lambda: open_backend(plain, threads=self.threads, timeout_s=self.timeout_s, date=self.date)
        )

    def _paid(self, spec: ModelSpec, journal: CallJournal, account: str, minute: MinuteLimit) -> OpenBackend:
        parameters = self._parameters.setdefault((str(spec.endpoint), spec.id), Parameters())

        def ask(whole: WholeAnswers) -> Backend:
            return open_backend(spec, timeout_s=self.timeout_s, parameters=parameters, whole=whole)

        def paid(label: str) -> Backend:
            return PaidBackend(
                ask,
                label,
                journal,
                account=account,
                spending=self.spending,
                minute=minute,
                changes=parameters.changes,
            )

        return paid
