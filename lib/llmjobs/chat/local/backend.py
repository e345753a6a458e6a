"""A model on this machine as a backend: token by token, keys and values kept over turns."""

import datetime
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from llmjobs.chat.backend import AnswerStream, Ending, FinishReason, Sampling
from llmjobs.chat.local.kept_keys import KeptKeys
from llmjobs.chat.messages import Message
from llmjobs.chat.prompt import ChatPrompt
from llmjobs.chat.text_stream import ReplyStream
from llmjobs.errors import ModelError
from llmjobs.models.load import LoadedModel
from llmjobs.scoring.decoding import prepare
from llmjobs.scoring.finite import finite_rows, why_not_finite
from llmjobs.scoring.generate import end_tokens, processor_names
from llmjobs.scoring.sampling import Sampling as TokenSampling
from llmjobs.scoring.sampling import next_tokens

log = logging.getLogger(__name__)


class LocalBackend:
    """Answers with a loaded model. Random numbers are its own, so that they can be saved."""

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        keeps_keys: bool = True,
        warn: Callable[[str], None] = log.warning,
        date: datetime.date | None = None,
    ) -> None:
        """``keeps_keys`` off computes every turn whole (for comparisons); ``date`` is today for the chat template.

        Raises:
            ModelError: the chat template cannot do what the model's ``thinking`` asks for.

        """
        self.name = loaded.spec.name
        self._loaded = loaded
        self.prompt = ChatPrompt(loaded.tokenizer, warn, who=self.name, thinking=loaded.spec.thinking, date=date)
        self.end_ids = self.prompt.end_ids | end_tokens(loaded.model, loaded.tokenizer)
        self._keys = KeptKeys(loaded.model, self.name, keeps=keeps_keys, warn=warn)
        self._processor_names = processor_names(loaded.model)
        self._random = torch.Generator()
        self._prompts = self.prompt.to_record()

    @property
    def limit(self) -> int:
        """Longest prompt and answer together."""
        return self._loaded.max_length

    @property
    def effective(self) -> Mapping[str, Any]:
        """Device, number format and quantization as loaded, and how prompts are written."""
        found = self._loaded.description
        return {
            "device": found.device,
            "dtype": found.dtype,
            "quantization": found.quantization,
            **self._prompts,
            "limit": self.limit,
            "threads": torch.get_num_threads(),
        }

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt, exactly."""
        return len(self.prompt.encode(tuple(messages)))

    def answer(self, messages: Sequence[Message], sampling: Sampling) -> AnswerStream:
        """Generate until an end token, a stop text or the longest length."""
        ids = self.prompt.encode(tuple(messages))
        form = self.prompt.format
        stops = (*self.prompt.stops, *sampling.stop)
        text = ReplyStream(self._decode, self._decode_all, stops, marks=form.marks, begun=form.begins_thinking)
        how = TokenSampling(sampling.temperature, sampling.top_p)
        finish: FinishReason = "length"
        said: list[int] = []
        is_whole = False
        try:
            change = self._processors(ids, sampling.max_new_tokens)
            logits, reused = self._keys.prefill(ids, sampling.max_new_tokens)
            while len(said) < sampling.max_new_tokens:
                if said:
                    logits = self._keys.advance(said[-1])
                if not finite_rows(logits)[0]:
                    raise ModelError(f"{self.name}: {why_not_finite(self._loaded.model)}")
                if change:
                    logits = change(torch.tensor([[*ids, *said]], device=logits.device), logits)
                said.append(next_tokens(logits, [how], [self._random])[0])
                if said[-1] not in self.end_ids:
                    yield text.add(said[-1])
                if said[-1] in self.end_ids or text.stopped:
                    finish = "stop"
                    break
            yield text.end()
            is_whole = True
        finally:
            self._keys.settle(said if is_whole else ())
        return Ending(finish, len(ids), len(said), reused, thinking_tokens=text.thinking_tokens)

    def start(self, seed: int) -> None:
        """Forget what was read; random numbers from ``seed``."""
        self._keys.forget()
        self._random.manual_seed(seed)

    def reseed(self, seed: int) -> None:
        """Random numbers from ``seed``; what was read is kept."""
        self._random.manual_seed(seed)

    def state(self) -> Mapping[str, Any]:
        """Random state and what the cache was computed from."""
        return {"random": self._random.get_state().numpy().tobytes(), "keys": dict(self._keys.state())}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set the random state and compute the cache again."""
        self._random.set_state(torch.frombuffer(bytearray(state["random"]), dtype=torch.uint8))
        self._keys.restore(state["keys"])

    def close(self) -> None:
        """Free the weights."""
        self._keys.forget()
        self._loaded.close()

    def _processors(self, ids: Sequence[int], new_tokens: int) -> Any:
        """Return what the checkpoint's generation config does to logits, as ``transformers.generate`` does; or None."""
        if not self._processor_names:
            return None
        tokens = torch.tensor([ids], device=self._loaded.model.device)
        return prepare(self._loaded.model, tokens, torch.ones_like(tokens), new_tokens)[2]

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._loaded.tokenizer.decode(list(ids), skip_special_tokens=True))

    def _decode_all(self, ids: Sequence[int]) -> str:
        return str(self._loaded.tokenizer.decode(list(ids), skip_special_tokens=False))
