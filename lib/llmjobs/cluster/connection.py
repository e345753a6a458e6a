"""The connection to a Ray cluster: ``--ray auto`` or an address."""

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import ray
from ray._private import worker
from ray._private.utils import read_ray_address

from llmjobs.cluster import when_gone
from llmjobs.errors import LlmjobsError

T = TypeVar("T")
PROBE_S = 120.0
CONNECT_S = 10.0
LOOK_S = 0.5
MOST_MISSED = 6
"""After this many failed checks in a row, the cluster counts as lost. A head that restarts is back sooner."""

_gone: list[str] = []
"""The line that reports a lost cluster, once it is lost."""


class ClusterError(LlmjobsError):
    """A Ray cluster that cannot be used."""


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connect as the driver of the cluster at ``address``: ``auto`` (this machine is part of it) or ``HOST:PORT``.

    ``local`` starts Ray on this machine only, for the duration of the run.

    Raises:
        ClusterError: there is no cluster, or it has another version of Ray or Python.

    """
    if "://" in address:
        raise ClusterError(
            f"--ray {address}: the driver writes the results, so it must run on a node of the cluster; start it "
            "there with --ray auto"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_SCHEDULER_EVENTS", "0")  # Ray would warn about workers that are requested in advance
    if address != "local":
        address = _reachable(address)
    own: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, namespace="llmjobs", logging_level=logging.ERROR, log_to_driver=True, **own)
    except (ConnectionError, ValueError, RuntimeError, OSError, ray.exceptions.RayError) as error:
        why = str(error).strip().split("\n", 1)[0][:300]
        raise ClusterError(f"--ray {address}: {why}; 'ray start --head' starts a cluster here") from None
    try:
        with _watched(address):
            yield
    finally:
        ray.shutdown()


@contextmanager
def _watched(address: str) -> Iterator[None]:
    """Report a lost cluster in one line; :data:`llmjobs.cluster.when_gone` defines what happens then.

    If its node or head is lost, Ray's library ends the driver after a minute of log lines, without an exception that we
    could report. The run's folder is as after a kill; the next start resumes from there.
    """
    over = threading.Event()
    _gone.clear()
    threading.Thread(target=_look_after, args=(address, over), name="cluster", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _look_after(address: str, over: threading.Event) -> None:
    head, node = _places()
    missed = 0
    while not over.wait(LOOK_S):
        missed = 0 if head is None or _answers(head) else missed + 1
        if over.is_set() or (missed < MOST_MISSED and (node is None or _answers(node))):
            continue
        what = f"its head at {head} does not respond" if missed else "this machine's node has stopped"
        line = (
            f"--ray {address}: lost the cluster: {what}. Progress is saved; start the cluster and run "
            "the same command again, or run it without --ray to resume on this machine"
        )
        _gone.append(line)
        when_gone.do(line)
        return


def check_there() -> None:
    """Raise ClusterError if the cluster is lost."""
    if _gone:
        raise ClusterError(_gone[0])


def _places() -> tuple[str | None, str | None]:
    """Addresses of the head (``HOST:PORT``) and of this machine's node (the path of a socket)."""
    try:
        head: Any = ray.get_runtime_context().gcs_address
        own: Any = worker.global_worker.node
        node = own.raylet_socket_name
    except (AttributeError, RuntimeError):
        return None, None
    return (str(head) if head else None), (str(node) if node else None)


def _answers(place: str) -> bool:
    try:
        if place.startswith("/"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as tried:
                tried.connect(place)
        else:
            host, _, port = place.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except OSError:
        return False
    return True


def _reachable(address: str) -> str:
    """The head's address, after trying to connect, because Ray itself would try for minutes.

    Raises:
        ClusterError: nothing answers at the address.

    """
    start = "run 'ray start --head' to start a cluster here, or use --ray local for one that lasts for this run only"
    found = (os.environ.get("RAY_ADDRESS") or read_ray_address()) if address == "auto" else address
    if not found:
        raise ClusterError(f"--ray auto: this machine is not part of a cluster; {start}")
    host, _, port = str(found).rpartition(":")
    if not host or not port.isdecimal():
        raise ClusterError(f"--ray {found}: is not HOST:PORT; use the address of the head, or auto")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise ClusterError(f"--ray {found}: no response ({error.strerror or error}); {start}") from None
    return str(found)


def alive_nodes() -> list[dict[str, Any]]:
    """Ray's description of every node that is running."""
    nodes: Any = ray.nodes  # untyped in Ray
    return [node for node in nodes() if node["Alive"]]


def _node(node_id: str) -> dict[str, Any]:
    return next((node for node in alive_nodes() if node["NodeID"] == node_id), {})


def node_name(node_id: str, host: str) -> str:
    """The name of a node if it has one, otherwise its host name."""
    found = _node(node_id)
    name = str(found.get("NodeName") or "")
    return host if not name or name == found.get("NodeManagerAddress") else name


def gpu_kind(node_id: str) -> str | None:
    """Ray's name for a node's type of GPU; None if it has no GPU."""
    resources = _node(node_id).get("Resources", {})
    return next((key.partition(":")[2] for key in resources if key.startswith("accelerator_type:")), None)


def ask_a_node(function: Callable[..., T], *arguments: Any, cpus: float = 0.0, gpus: float = 0.0) -> T | None:
    """Call ``function`` on a node with these free resources; None if no node has them in time.

    Raises:
        LlmjobsError: what the function raised.

    """
    remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=2)(function)
    reference = remote.remote(*arguments)
    try:
        found: T = ray.get(reference, timeout=PROBE_S)
    except ray.exceptions.GetTimeoutError:
        ray.cancel(reference, force=True)
        return None
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise cause if isinstance(cause, LlmjobsError) else ClusterError(str(cause)) from None
    return found
