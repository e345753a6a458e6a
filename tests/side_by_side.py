"""How tests are shared out where processes run them side by side: by file, but for the places named here."""

TOGETHER = {
    "tests/cluster/": "cluster",
    "tests/mtbench/test_mtbench_cluster.py": "cluster",
    "tests/container/test_cluster_image.py": "cluster",
    "tests/packaging/": "packaging",
}
"""Files and folders of which never two run at a time. Clusters look for Ray's processes on the whole machine; packages
are built in the working tree and installed into one environment."""
LONGEST = (
    "tests/docs/test_doc_commands_run.py",
    "tests/prepare/test_plan_shipped.py",
    "tests/cluster/",
    "tests/container/test_image.py",
    "tests/matrix/test_matrix_slow.py",
    "tests/packaging/",
    "tests/crash/test_job_boundaries.py",
)
"""Begin first, so that no process is left with one of them at the end."""
SPREAD = (
    "tests/engines/test_every_causal_lm.py",
    "tests/engines/test_loading_report.py",
    "tests/test_messages.py",
)
"""Long files whose tests share nothing: each test is handed out alone. They come last and fill what is left."""


def scope_of(nodeid: str) -> str:
    """Name what stays in one process with a test: its file, a group of files, or the test alone."""
    for place, group in TOGETHER.items():
        if nodeid.startswith(place):
            return group
    return nodeid if nodeid.startswith(SPREAD) else nodeid.split("::", 1)[0]


def turn_of(nodeid: str) -> int:
    """When a test begins: the lowest first."""
    early = [at for at, place in enumerate(LONGEST) if nodeid.startswith(place)]
    return early[0] if early else len(LONGEST) + nodeid.startswith(SPREAD)
