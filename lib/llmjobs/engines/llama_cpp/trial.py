"""Does the installed llama.cpp compute a file without crashing? Tried in a process of its own, once a machine.

llama.cpp uses special kernels with weights in an order of their own. A build that does not fit the processor ends the
whole process: GCC 12 compiles those for AMX wrongly, for example. A crash in the child is an answer, not an end.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmjobs.engines.kept_trials import Known
from llmjobs.engines.llama_cpp.gguf import Header, weights_by_format
from llmjobs.errors import ModelError
from llmjobs.machine.child import Reporter, describe_end, run_child, serve

MODULE = "llmjobs.engines.llama_cpp.trial"
KERNELS = "llama_cpp_kernels"
TOKENS = (40, 1)
"""Of the two passes: kernels for many rows, and for one."""


def special_kernels(who: str, path: Path, headers: Sequence[Header], gpu_layers: int) -> bool:
    """Whether the special kernels may be used for this file; found out once for its formats, then kept in the cache.

    Raises:
        ModelError: the file crashes llama.cpp with the plain kernels too.

    """
    known = Known(
        library=_library_stamp(),
        formats=sorted(weights_by_format(headers)),
        architecture=headers[0].architecture,
        gpu_layers=gpu_layers,
    )
    if isinstance(found := (known.get(KERNELS) or {}).get("special"), bool):
        return found
    for special in (True, False):
        ended = run_child(MODULE, {"path": str(path), "gpu_layers": gpu_layers, "special": special})
        if ended.result is not None:
            known.put(KERNELS, {"special": special})
        if ended.result is not None or ended.error:  # an error of one line is for the real load to tell
            return special
    raise ModelError(
        f"{who}: llama.cpp {describe_end(ended)}; build llama-cpp-python on this machine (docs/gguf.md), or use "
        "another file"
    )


def _library_stamp() -> list[list[Any]]:
    """Names, sizes and times of the shared libraries, so that another build is tried anew."""
    from importlib.util import find_spec

    found = find_spec("llama_cpp")
    folder = Path(found.origin or "").parent / "lib" if found else Path()
    folder = Path(os.environ.get("LLAMA_CPP_LIB_PATH") or folder)
    return [[one.name, one.stat().st_size, one.stat().st_mtime_ns] for one in sorted(folder.glob("lib*"))]


def try_file(task: Mapping[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Load the file and compute some tokens (the child's part)."""
    from llmjobs.engines.llama_cpp.context import Context, ContextSettings
    from llmjobs.engines.llama_cpp.weights import load_weights

    reporter.phase("load")
    model = load_weights("trial", Path(task["path"]), int(task["gpu_layers"]), special=bool(task["special"]))
    reporter.phase("the first tokens")
    context = Context("trial", model, ContextSettings(threads=2, sequences=1), sum(TOKENS))
    place = 0
    for count in TOKENS:
        context.decode(range(count), range(place, place + count), [(0,)] * count, [*[False] * (count - 1), True])
        place += count
    context.close()
    return {"tokens": place}


if __name__ == "__main__":
    serve(try_file)
