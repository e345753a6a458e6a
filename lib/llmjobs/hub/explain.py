"""Turn what the hub's client raises into one line: what is wrong and what to do about it."""

import errno
import json
import os
from collections.abc import Iterator

BUSY = (408, 429, 500, 502, 503, 504)


GATED = "is gated"
"""What the line says of a model whose owner grants access on request."""


def explain(who: str, repo_id: str, what: str, error: BaseException) -> str | None:
    """Explain an error of the hub anywhere in the chain of causes; None if it is not an error of the hub.

    ``who`` starts the line (a model's name in the manifest), ``what`` is ``model``, ``tokenizer`` or ``data set``.
    """
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"{who}: no space left for {repo_id} in the cache; free some space, or set HF_HOME to a larger disk"
    found = list(_chain(error))
    for explain_as in (_told_by_status, _told_by_network, _told_by_transformers):
        for one in reversed(found):
            if line := explain_as(repo_id, what, one):
                return f"{who}: {line}"
    return None


def retry_after_s(error: BaseException) -> float | None:
    """Return the minimum wait before another try (0 if the hub did not ask for one), or None if retrying is useless."""
    if _is_offline_error(error):
        return None
    status, headers = _response(error)
    if status in BUSY:
        wish = headers.get("retry-after", "")
        return float(wish) if wish.isascii() and wish.isdigit() and len(wish) < 9 else 0.0
    return 0.0 if status is None and is_connection_error(error) else None


def busy_reason(error: BaseException) -> str:
    """Why the call is tried again, for people who wait."""
    status, _ = _response(error)
    if status == 429:
        return "the hub's rate limit is reached (HTTP 429)"
    return f"the hub is busy (HTTP {status})" if status else f"the hub is not responding ({network_reason(error)})"


def is_connection_error(error: BaseException) -> bool:
    """Whether the network failed or is switched off, rather than the hub refusing."""
    names = {f"{c.__module__.split('.')[0].rstrip('2')}.{c.__name__}" for c in type(error).__mro__}
    return isinstance(error, ConnectionError | TimeoutError) or "httpx.TransportError" in names


def page(repo_id: str, what: str) -> str:
    """Return the address of a repository's page."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{'datasets/' if what == 'data set' else ''}{repo_id}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        at = at.__cause__ or at.__context__


def _response(error: BaseException) -> tuple[int | None, dict[str, str]]:
    response = getattr(error, "response", None)
    if response is None:
        return None, {}
    return response.status_code, {str(k).lower(): str(v) for k, v in response.headers.items()}


def _told_by_status(repo_id: str, what: str, error: BaseException) -> str | None:
    from huggingface_hub import errors

    status, headers = _response(error)
    if "invalid credentials" in headers.get("x-error-message", "").lower():
        return f"the token (from {_token_source()}) is not valid; it may have expired. Run 'hf auth login' again"
    if isinstance(error, errors.GatedRepoError):
        return _gated(repo_id, what, status)
    if isinstance(error, errors.RepositoryNotFoundError):
        return _not_found(repo_id, what)
    if isinstance(error, errors.RevisionNotFoundError):
        where = page(repo_id, what)
        return f"{repo_id} does not have this revision (any more); choose one listed at {where} for revision:"
    if isinstance(error, errors.DisabledRepoError):
        return f"{repo_id} is disabled on the hub; see {page(repo_id, what)}"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return f"{repo_id} is missing a file that a {what} needs; see {page(repo_id, what)}/tree/main"
    if status == 429:
        return _limited(repo_id, retry_after_s(error) or 0.0)
    if status in BUSY:
        return f"the hub answered {status} to every attempt for {repo_id}; try again later. Finished downloads are kept"
    if isinstance(error, errors.HfHubHTTPError) and status is not None:
        return f"the hub answered {status} for {repo_id}; see {page(repo_id, what)}"
    return None


def _limited(repo_id: str, wait_s: float) -> str:
    wait = f", which asks to wait {duration(wait_s)}" if wait_s else ""
    login = "" if _token_source() else "; with an account the limit is higher (hf auth login)"
    again = f"after {duration(wait_s)}" if wait_s else "later"
    return (
        f"{repo_id}: the rate limit of the hub is reached (HTTP 429){wait}; run the same command again {again}. "
        f"Finished downloads are kept{login}"
    )


def duration(seconds: float) -> str:
    """``40 s``, ``5 min``, ``1.5 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _gated(repo_id: str, what: str, status: int | None) -> str:
    where = page(repo_id, what)
    source = _token_source()
    if status == 403 or source is not None:
        return (
            f"{repo_id} {GATED} and the token (from {source}) does not have access yet; request it at {where} and "
            "wait for approval. A fine-grained token must also allow reading gated repositories"
        )
    return (
        f"{repo_id} {GATED} and there is no token; request access at {where}, then run 'hf auth login' or set HF_TOKEN"
    )


def _not_found(repo_id: str, what: str) -> str:
    source = _token_source()
    seen = f"the token (from {source}) cannot see it" if source else "needs a token (hf auth login, or HF_TOKEN)"
    kind = "data set" if what == "data set" else "model"
    return f"there is no {kind} {repo_id} on the hub, or it is private and {seen}; check the spelling first"


def _told_by_network(repo_id: str, what: str, error: BaseException) -> str | None:
    from huggingface_hub import errors

    if isinstance(error, errors.HFValidationError):
        return f"{repo_id!r} is neither a name on the hub (OWNER/NAME) nor an existing folder"
    if isinstance(error, errors.FileMetadataError | json.JSONDecodeError) or type(error).__name__ == "JSONDecodeError":
        return (
            f"the answer for {repo_id} came from a web page or a proxy, not from the hub; log in to this network in a "
            "browser, and check HF_ENDPOINT and the proxy settings"
        )
    if _is_offline_error(error) or isinstance(error, errors.LocalEntryNotFoundError):
        if _is_offline():
            return f"{repo_id} is not completely cached and HF_HUB_OFFLINE is set; run 'llmjobs fetch' online first"
        return f"{repo_id} is not cached and the hub cannot be reached; check the network, then run 'llmjobs fetch'"
    if is_connection_error(error):
        return (
            f"the hub cannot be reached for {repo_id} ({network_reason(error)}); check the network, or run 'llmjobs "
            "fetch' beforehand"
        )
    return None


def network_reason(error: BaseException) -> str:
    """The reason without the name of an exception: what the system says, or that there was a timeout."""
    for one in _chain(error):
        if isinstance(one, OSError) and one.strerror:
            return one.strerror
    return "timeout" if "timeout" in type(error).__name__.lower() else "the connection broke"


def _told_by_transformers(repo_id: str, what: str, error: BaseException) -> str | None:
    """Explain errors that transformers distinguishes only by their text."""
    text = str(error)
    if isinstance(error, ValueError) and "trust_remote_code" in text:
        return f"{repo_id} needs to run its own Python code; read it first, then allow it with trust_remote_code: true"
    if isinstance(error, OSError) and "safetensors" in text and "file named" in text:
        return (
            f"{repo_id} has no safetensors weights; use another model, or allow its other weights with pickle_weights: "
            "true (loading them can run code)"
        )
    return None


def _is_offline_error(error: BaseException) -> bool:
    from huggingface_hub import errors

    return isinstance(error, errors.OfflineModeIsEnabled)


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _token_source() -> str | None:
    """Where the token comes from, in words that do not give it away."""
    from huggingface_hub import constants, get_token

    if get_token() is None:
        return None
    names = [name for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if os.environ.get(name)]
    return names[0] if names else str(constants.HF_TOKEN_PATH)
