"""The endpoint engine: a model behind an OpenAI-compatible server, behind the engine protocol. No torch."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from llmjobs.calls.client import Endpoint, EndpointAddress
from llmjobs.calls.event_stream import MODELS, open_completion
from llmjobs.calls.request import Answer
from llmjobs.calls.spending import PaidCalls
from llmjobs.clocks import DeviceClock
from llmjobs.engines.endpoint.ask import Client
from llmjobs.engines.endpoint.generate import Generator
from llmjobs.engines.endpoint.score import NOT_FINITE, Scorer
from llmjobs.engines.locate import Located
from llmjobs.engines.protocol import ChatModel, Description, Warn
from llmjobs.engines.speed import Speed
from llmjobs.errors import ModelError, RefusedCallError, UnavailableError
from llmjobs.hub.repositories import RemoteFile, RemoteRepo
from llmjobs.manifest.models import ModelSpec

log = logging.getLogger(__name__)
UNLIMITED = 1 << 20
"""Context length to assume if a server does not report one."""
UNKNOWN = "unknown"


class ModelList(Answer):
    """The list of models that a server offers."""

    def __init__(self, wanted: Mapping[str, Any], sent: Mapping[str, Any]) -> None:
        """Create the request; nothing is sent yet."""
        super().__init__(wanted, sent)
        self.models: list[Mapping[str, Any]] = []

    def pieces(self, url: str, key: str, *, silence_s: float, answer_s: float) -> Any:
        """Request the list; yields one empty piece."""
        with open_completion(url, key, None, silence_s=silence_s, answer_s=answer_s) as completion:
            for event in completion:
                data = event.get("data")
                self.models += [one for one in data if isinstance(one, dict)] if isinstance(data, list) else []
        yield ""


class EndpointEngine:
    """One model on a server."""

    def __init__(self, spec: ModelSpec, models: Sequence[Mapping[str, Any]]) -> None:
        """``models`` is the server's list; empty if it has none."""
        assert spec.endpoint is not None
        self.spec = spec
        self._said = next((one for one in models if one.get("id") == spec.id), {})
        self._workers, self._timeout_s = 1, 120.0
        self._open: list[Scorer | Generator] = []
        thinking = None if not spec.chat_template else spec.thinking_tokens > 0
        self._client = Client(endpoint_of(spec), thinking)

    def pay_with(self, calls: PaidCalls | None, *, workers: int = 1, timeout_s: float = 120.0) -> None:
        """Make all further calls through ``calls``; None ends the calls that run ahead."""
        for one in self._open:
            one.close()
        self._client.paid, self._workers = calls, workers
        self._client.endpoint.timeout_s = timeout_s

    @property
    def changes(self) -> Mapping[str, str]:
        """The parameters that the server does not accept, as far as is known."""
        return self._client.endpoint.parameters.changes

    @property
    def description(self) -> Description:
        """What the server reports about the model; the rest is unknown."""
        meta = self._said.get("meta")
        meta, owner = meta if isinstance(meta, Mapping) else {}, self._said.get("owned_by")
        return Description(
            id=self.spec.id,
            revision=None,
            architecture=f"server ({owner})" if isinstance(owner, str) and owner else "server",
            device="server",
            dtype=UNKNOWN,
            quantization=UNKNOWN,
            parameters=_positive(meta.get("n_params")),
            weight_bytes=_positive(meta.get("size")),
            attention=UNKNOWN,
            has_chat_template=self.spec.chat_template,
            engine="endpoint",
            context_length=_positive(self._said.get("max_model_len")) or _positive(meta.get("n_ctx")),
        )

    @property
    def tokenizer(self) -> None:
        """None, because the server tokenizes."""
        return None

    @property
    def max_length(self) -> int:
        """Practically unlimited: the server says if a prompt does not fit."""
        return UNLIMITED

    @property
    def effective(self) -> Mapping[str, Any]:
        """The model's name on the server; the hardware there is unknown."""
        unknown = {"device": "server", "dtype": UNKNOWN, "quantization": UNKNOWN, "threads": None}
        return {"engine": "endpoint", **unknown, "endpoint_model": self.spec.id}

    device_name: str | None = None
    mapped_weight_bytes: int | None = None
    not_finite_reason = NOT_FINITE

    def clock(self) -> DeviceClock | None:
        """None, because a server's device is not measured."""
        return None

    def scorer(self, warn: Warn = log.warning) -> Scorer:
        """Log-likelihoods in the way that the probe verifies."""
        made = Scorer(self._client, lambda: self._workers, warn)
        self._open.append(made)
        return made

    def generator(self, path: str | None = None, *, found: object = None, warn: Warn = log.warning) -> Generator:
        """Replies to messages, or to plain texts without a chat template."""
        made = Generator(self._client, self._workers, "chat" if self.spec.chat_template else "completions")
        self._open.append(made)
        return made

    def chat_model(self, *, keeps_keys: bool = True, warn: Warn = log.warning) -> ChatModel:
        """Not supported, because a conversation with a server uses ``chat.endpoint``."""
        _not_here(self.spec, "cannot generate token by token")

    def measure_speed(self, contexts: Sequence[int], *, rows: int, new_tokens: int, tries: int = 1) -> list[Speed]:
        """Not supported, because a server's response time says little about its machine."""
        _not_here(self.spec, "is not timed")

    def close(self) -> None:
        """Wait for the calls in progress."""
        for one in self._open:
            one.close()


def endpoint_of(spec: ModelSpec) -> Endpoint:
    """Return the endpoint of a manifest's model."""
    return Endpoint(EndpointAddress(str(spec.endpoint), spec.id, spec.api_key_env), name=spec.name)


def _positive(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _not_here(spec: ModelSpec, what: str) -> NoReturn:
    raise ModelError(f"{spec.name}: a model on a server {what}; use a model on this machine")


# The functions of the module (``protocol.EngineModule``).


def open_model(spec: ModelSpec, *, threads: int | str = "auto") -> EndpointEngine:
    """Ask the server for its models, so that a missing server or a refused key is noticed before anything else.

    Raises:
        UnavailableError: the server cannot be used.

    """
    endpoint = endpoint_of(spec)
    try:
        models = endpoint.ask({}, ModelList, path=MODELS).models
    except UnavailableError as error:
        if "answered 404" not in str(error) and "answered 405" not in str(error):
            raise
        models = []
    except RefusedCallError:
        models = []  # it lists none, which proves nothing
    names = [str(one.get("id")) for one in models]
    if names and not {spec.id, f"{spec.id}:latest"} & set(names):
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        log.warning("%s: the server does not list a model %r; it lists %s", endpoint.who, spec.id, shown)
    return EndpointEngine(spec, models)


def locate(spec: ModelSpec) -> Located:
    """A model on a server has no files here."""
    return Located(spec.id, None, is_local=True)


def local_path(spec: ModelSpec) -> Path | None:
    """None: there are no files."""
    return None


def repository(spec: ModelSpec) -> str:
    """The model's name on the server."""
    return spec.id


def is_cached(spec: ModelSpec, revision: str) -> bool:
    """Do nothing, because no files are needed."""
    return True


def check_cached(spec: ModelSpec, folder: Path) -> None:
    """Do nothing, because no files are needed."""


def check_repository(spec: ModelSpec, commit: str) -> None:
    """Do nothing, because no files are needed."""


def devices() -> list[str]:
    """None of this machine's."""
    return []


def clock(device: str) -> DeviceClock | None:
    """None, because a server's device is not measured."""
    return None


def import_all(spec: ModelSpec) -> None:
    """Do nothing, because no further imports are needed."""


def warm_up_s(device: str) -> float:
    """0: there is no device."""
    return 0.0


def gpu_uuid() -> str | None:
    """None: there is no GPU."""
    return None


def weight_files(located: Located) -> list[Path]:
    """None are here."""
    return []


def wanted_files(spec: ModelSpec, repo: RemoteRepo) -> list[RemoteFile]:
    """Empty, because no files are needed."""
    return []


def ensure_files(spec: ModelSpec, located: Located) -> None:
    """Empty, because no files are needed."""


def check_files(spec: ModelSpec, located: Located) -> None:
    """Do nothing, because no files are needed."""


def load_tokenizer(spec: ModelSpec, located: Located) -> None:
    """None, because the server tokenizes."""
    return None


def context_length(spec: ModelSpec, located: Located) -> int:
    """Practically unlimited: the server says if a prompt does not fit."""
    return UNLIMITED


def forecast(
    spec: ModelSpec, located: Located, *, threads: int | str, unit: Mapping[str, int] | None, rows: int
) -> dict[str, Any]:
    """Not supported, because a server reports neither sizes nor speed."""
    _not_here(spec, "does not report its size and speed")


if TYPE_CHECKING:
    from llmjobs.engines.endpoint import engine
    from llmjobs.engines.protocol import EngineModule

    _complete: EngineModule = engine
