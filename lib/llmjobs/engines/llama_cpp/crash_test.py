"""Check, once per machine and in a child process, whether the installed llama.cpp runs a file without crashing.

llama.cpp uses special kernels with reordered weights. A build that does not fit the processor ends the whole process:
for example, GCC 12 miscompiles the kernels for AMX. A crash of the child is an answer.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmjobs.engines.llama_cpp.gguf import Header, weights_by_format
from llmjobs.engines.trial_cache import Known
from llmjobs.errors import ModelError
from llmjobs.machine.child import Reporter, describe_end, run_child, serve

MODULE = "llmjobs.engines.llama_cpp.crash_test"
KERNELS = "llama_cpp_kernels"
TOKENS = (40, 1)
"""Tokens of the two passes, for kernels of many rows and of one."""


def special_kernels(who: str, path: Path, headers: Sequence[Header], gpu_layers: int) -> bool:
    """Whether the special kernels may be used for this file; tested once for its formats, then cached.

    Raises:
        ModelError: the file also crashes llama.cpp with the plain kernels.

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
        if ended.result is not None or ended.error:  # the real load will report an ordinary error
            return special
    raise ModelError(
        f"{who}: llama.cpp {describe_end(ended)}; build llama-cpp-python on this machine (docs/gguf.md), or use "
        "another file"
    )


def _library_stamp() -> list[list[Any]]:
    """Names, sizes and times of the shared libraries, so that another build is tested again."""
    from importlib.util import find_spec

    found = find_spec("llama_cpp")
    folder = Path(found.origin or "").parent / "lib" if found else Path()
    folder = Path(os.environ.get("LLAMA_CPP_LIB_PATH") or folder)
    return [[one.name, one.stat().st_size, one.stat().st_mtime_ns] for one in sorted(folder.glob("lib*"))]


def try_file(task: Mapping[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Load the file and compute some tokens (runs in the child)."""
    from llmjobs.engines.llama_cpp.context import Context, ContextSettings
    from llmjobs.engines.llama_cpp.library import load_weights

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
