"""A model on this machine as a chat backend, on any engine."""

import datetime
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmjobs.chat.backend import AnswerStream, Ending, FinishReason, Sampling
from llmjobs.chat.messages import Message
from llmjobs.chat.prompt import ChatPrompt
from llmjobs.chat.text_stream import ReplyStream
from llmjobs.clocks import DeviceClock
from llmjobs.engines import protocol
from llmjobs.engines.protocol import Engine
from llmjobs.thinking import ThinkingCount

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

        If the sampling has tokens for thinking, the thinking is ended when it has used them up, and the answer has its
        own limit. Otherwise both share one limit.
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
