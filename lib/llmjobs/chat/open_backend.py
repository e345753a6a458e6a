"""Open what answers in a chat: a model on this machine, on any engine, or a server."""

import copy
import datetime
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, Self

from llmjobs.calls.client import EndpointAddress, WholeAnswers
from llmjobs.calls.refused_parameters import Parameters
from llmjobs.calls.spending import MinuteLimit, Spending
from llmjobs.chat.backend import AnswerStream, Backend, Ending, FinishReason, Sampling
from llmjobs.chat.endpoint_backend import EndpointBackend, PaidBackend
from llmjobs.chat.messages import Message
from llmjobs.chat.prompt import ChatPrompt
from llmjobs.chat.text_stream import ReplyStream
from llmjobs.clocks import DeviceClock, measured
from llmjobs.engines import protocol
from llmjobs.engines.protocol import Engine
from llmjobs.engines.registry import open_model
from llmjobs.manifest.models import ModelSpec
from llmjobs.thinking import ThinkingCount
from llmjobs.work.call_journal import CallJournal
from llmjobs.work.folder import RunFolder
from llmjobs.work.held_model import HeldModel

log = logging.getLogger(__name__)


class LocalBackend:
    """Answers with a loaded model, token by token."""

    def __init__(
        self,
        engine: Engine,
        *,
        keeps_keys: bool = True,
        warn: Callable[[str], None] = log.warning,
        date: datetime.date | None = None,
    ) -> None:
        """Without ``keeps_keys`` each turn is computed from the beginning; the chat template prints ``date`` as today.

        Raises:
            ModelError: the chat template does not support the requested ``thinking``.

        """
        self.name = engine.spec.name
        self.engine = engine
        self.prompt = ChatPrompt(engine.tokenizer, warn, who=self.name, thinking=engine.spec.thinking, date=date)
        self.model = engine.chat_model(keeps_keys=keeps_keys, warn=warn)
        self.end_ids = self.prompt.end_ids | self.model.end_tokens
        self._prompts = self.prompt.to_record()

    @property
    def limit(self) -> int:
        """Maximum number of tokens of prompt and answer together."""
        return self.engine.max_length

    @property
    def effective(self) -> Mapping[str, Any]:
        """The engine's effective settings, and how prompts are written."""
        return {**self.engine.effective, **self._prompts, "limit": self.limit}

    def clock(self) -> DeviceClock | None:
        return self.engine.clock()

    def count(self, messages: Sequence[Message]) -> int:
        """The exact number of tokens of the prompt."""
        return len(self.prompt.encode(tuple(messages)))

    def answer(self, messages: Sequence[Message], sampling: Sampling) -> AnswerStream:
        """Generate until an end token, a stop text or the maximum length.

        Where the sampling has tokens for thinking, the thinking is ended when it has used them up, and the answer has
        its own. Otherwise both share one limit.
        """
        ids = self.prompt.encode(tuple(messages))
        form = self.prompt.format
        stops = (*self.prompt.stops, *sampling.stop)
        text = ReplyStream(self._decode, self._decode_all, stops, marks=form.marks, begun=form.begins_thinking)
        how = protocol.Sampling(sampling.temperature, sampling.top_p)
        limit = form.thinking_limit(sampling.most_tokens, sampling.max_new_tokens) if sampling.thinking_tokens else None
        thinking = ThinkingCount(limit, self._decode_all) if limit else None
        finish: FinishReason = "length"
        new_tokens, is_whole = 0, False
        try:
            reused = self.model.read(ids, sampling.most_tokens)
            while new_tokens < sampling.most_tokens and not (thinking and thinking.is_full):
                written = thinking.written() if thinking else None
                if written is not None:
                    self.model.write(written)
                token = self.model.next_token(how) if written is None else written
                new_tokens += 1
                if thinking:
                    thinking.add(token)
                is_end = written is None and token in self.end_ids
                if not is_end:
                    yield text.add(token)
                if is_end or text.stopped:
                    finish = "stop"
                    break
            yield text.end()
            is_whole = True
        finally:
            self.model.finish(keep=is_whole)
        was_cut = thinking is not None and thinking.was_cut
        return Ending(finish, len(ids), new_tokens, reused, thinking_tokens=text.thinking_tokens, thinking_cut=was_cut)

    def start(self, seed: int) -> None:
        """Clear the cache and restart the random numbers from ``seed``."""
        self.model.forget()
        self.model.seed(seed)

    def reseed(self, seed: int) -> None:
        """Restart the random numbers from ``seed``; the cache is kept."""
        self.model.seed(seed)

    def state(self) -> Mapping[str, Any]:
        """The random state, and what the engine needs to recompute its cache."""
        return self.model.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        self.model.restore(state)

    def close(self) -> None:
        self.model.forget()
        self.engine.close()

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self.engine.tokenizer.decode(list(ids), skip_special_tokens=True))

    def _decode_all(self, ids: Sequence[int]) -> str:
        return str(self.engine.tokenizer.decode(list(ids), skip_special_tokens=False))


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
    from llmjobs.chat.open_backend import LocalBackend

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
        """A copy for another machine, without what is open here. Units that ask an endpoint stay with the command."""
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
