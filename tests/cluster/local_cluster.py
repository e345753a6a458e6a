"""A Ray cluster of several nodes on this machine, in a separate process that the tests control.

Run as a script: prints the address, then reads ``add NAME``, ``remove NAME``, ``freeze NAME`` and ``thaw NAME`` from
its standard input.
"""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

STORE_BYTES = 80 << 20
MEMORY_BYTES = 4 << 30
QUICK = {"health_check_period_ms": 500, "health_check_timeout_ms": 1000, "health_check_failure_threshold": 3}


class LocalCluster:
    """Nodes with one CPU each; the head has none, so that every unit runs on a node that can be lost."""

    def __init__(self, *names: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
        )
        self.address = self._answer()
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        self._order(f"add {name}")

    def remove(self, name: str) -> None:
        """Kill a node with everything on it, without a word to the others."""
        self._order(f"remove {name}")

    def freeze(self, name: str) -> None:
        """Stop all processes of a node: to the others it is as good as dead."""
        self._order(f"freeze {name}")

    def thaw(self, name: str) -> None:
        """Let a frozen node come back."""
        self._order(f"thaw {name}")

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()

    def __enter__(self) -> "LocalCluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _order(self, line: str) -> None:
        print(line, file=self.process.stdin, flush=True)
        assert self._answer() == "done", line

    def _answer(self) -> str:
        for line in self.process.stdout:
            if line.startswith("cluster: "):
                return line.removeprefix("cluster: ").strip()
        raise AssertionError("the cluster's process ended")


def signal_all(node, number: int) -> None:
    """Send a signal to a node's raylet and everything below it."""
    for group in node.all_processes.values():
        for process in group:
            raylet = psutil.Process(process.process.pid)
            for one in [raylet, *raylet.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.send_signal(number)


def serve() -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "object_store_memory": STORE_BYTES,
            "include_dashboard": False,
            "_system_config": QUICK,
        },
    )
    print("cluster:", cluster.address, flush=True)
    nodes = {}
    for line in sys.stdin:
        order, name = line.split()
        if order == "add":
            nodes[name] = cluster.add_node(
                num_cpus=1, node_name=name, memory=MEMORY_BYTES, object_store_memory=STORE_BYTES
            )
        elif order == "remove":
            cluster.remove_node(nodes.pop(name), allow_graceful=False)
        else:
            signal_all(nodes[name], signal.SIGSTOP if order == "freeze" else signal.SIGCONT)
        print("cluster: done", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    serve()
