"""The way to a Ray cluster: ``--ray auto`` or an address."""

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
"""Looks in a row that find no head before the cluster is taken to be gone: a head that starts again is quicker."""

_gone: list[str] = []
"""The line that says that the cluster is gone, once it is."""


class ClusterError(LlmjobsError):
    """A Ray cluster that cannot be used as asked."""


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Be a driver of the cluster at ``address``: ``auto`` (the one that this machine is part of), ``HOST:PORT``.

    ``local`` starts Ray on this machine alone, for the time of the run.

    Raises:
        ClusterError: there is no cluster, or it has another version of Ray or Python.

    """
    if "://" in address:
        raise ClusterError(
            f"--ray {address}: the driver writes the results beside its workers; start it on a node of the cluster "
            "with --ray auto"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_SCHEDULER_EVENTS", "0")  # workers are asked for ahead; Ray would complain of them
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
    """Say in one line that the cluster is gone; :data:`llmjobs.cluster.when_gone` says what comes of it.

    Ray ends a driver whose node or head is lost from within its own library, after a minute of log lines: no exception
    comes that could be told. What is in the run's folder is as after a kill, which the next start goes on from.
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
        what = f"its head at {head} no longer answers" if missed else "this machine's node has ended"
        line = (
            f"--ray {address}: the cluster is gone: {what}. Progress is saved; start the cluster and run "
            "the same command again, or run it without --ray to go on here"
        )
        _gone.append(line)
        when_gone.do(line)
        return


def check_there() -> None:
    """Raise ClusterError once the cluster was found to be gone."""
    if _gone:
        raise ClusterError(_gone[0])


def _places() -> tuple[str | None, str | None]:
    """Where this driver reaches the head (``HOST:PORT``) and its own machine's node (a socket's file)."""
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
    """The head's address, asked for a connection first: Ray itself would knock for minutes.

    Raises:
        ClusterError: nobody is there.

    """
    start = "'ray start --head' starts a cluster here, --ray local one for this run alone"
    found = (os.environ.get("RAY_ADDRESS") or read_ray_address()) if address == "auto" else address
    if not found:
        raise ClusterError(f"--ray auto: this machine is part of no cluster; {start}")
    host, _, port = str(found).rpartition(":")
    if not host or not port.isdecimal():
        raise ClusterError(f"--ray {found}: is no HOST:PORT; give the head's address, or auto")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise ClusterError(f"--ray {found}: nobody answers ({error.strerror or error}); {start}") from None
    return str(found)


def alive_nodes() -> list[dict[str, Any]]:
    """Ray's description of every node that is there."""
    nodes: Any = ray.nodes  # untyped in Ray
    return [node for node in nodes() if node["Alive"]]


def _node(node_id: str) -> dict[str, Any]:
    return next((node for node in alive_nodes() if node["NodeID"] == node_id), {})


def node_name(node_id: str, host: str) -> str:
    """The name that a node was given, else its host's."""
    found = _node(node_id)
    name = str(found.get("NodeName") or "")
    return host if not name or name == found.get("NodeManagerAddress") else name


def gpu_kind(node_id: str) -> str | None:
    """Ray's name of a node's GPUs."""
    resources = _node(node_id).get("Resources", {})
    return next((key.partition(":")[2] for key in resources if key.startswith("accelerator_type:")), None)


def ask_a_node(function: Callable[..., T], *arguments: Any, cpus: float = 0.0, gpus: float = 0.0) -> T | None:
    """Call ``function`` on some node with these resources free; None where none has them in time.

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
