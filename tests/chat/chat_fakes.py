"""Stand-ins: a backend that answers by rule and counts words, and a loader for tiny models."""

from collections.abc import Callable, Sequence
from pathlib import Path

from llmjobs.chat.backend import Ending
from llmjobs.chat.messages import Message


class FakeBackend:
    """Says what ``say`` gives for the last message, word by word; a token is a word, a message costs two more."""

    name = "fake"
    effective = {"fake": True}

    def __init__(self, limit: int = 200, say: Callable[[Sequence[Message]], str] = lambda sent: "Noted.") -> None:
        self.limit, self.say = limit, say
        self.sent: list[tuple[Message, ...]] = []
        self.seed = None

    def clock(self):
        return None

    def count(self, messages):
        return sum(2 + len(message.content.split()) for message in messages)

    def answer(self, messages, sampling):
        self.sent.append(tuple(messages))
        words = self.say(messages).split()[: sampling.max_new_tokens]
        for place, word in enumerate(words):
            yield word if place == 0 else f" {word}"
        return Ending("stop", self.count(messages), len(words))

    def start(self, seed):
        self.seed = seed

    reseed = start

    def state(self):
        return {}

    def restore(self, state):
        pass

    def close(self):
        pass


def load_backend(model: Path, *, thinking: str | int = "off", **options):
    from llmjobs.chat.local_backend import LocalBackend
    from llmjobs.engines.transformers.engine import TransformersEngine
    from llmjobs.engines.transformers.load import load_model
    from llmjobs.manifest.models import ModelSpec

    spec = ModelSpec(id=str(model), name="tiny", dtype="float32", device="cpu", thinking=thinking)
    return LocalBackend(TransformersEngine(load_model(spec)), **options)


def never_special(model, tokenizer):
    """Make special tokens unlikely, so that a random model does not end its answer at once."""
    import torch

    with torch.no_grad():
        model.get_output_embeddings().weight[tokenizer.all_special_ids] = 0.0
