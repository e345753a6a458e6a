"""Takes out of the image what no job reads: tests, headers, build tools; compiles the rest, for a quick start."""

import compileall
import shutil
import sys
from pathlib import Path
from py_compile import PycInvalidationMode

SITE = next(Path("/opt/llmjobs/lib").glob("python3*/site-packages"))
NOT_READ = ("**/tests", "*/include", "torch/share", "torch/test", "torch/bin/test_*", "torch/bin/protoc*", "*/*.a")
OF_RAY = ("jars", "cpp", "rllib", "llm", "serve", "train", "tune", "data", "dashboard/client")
"""Ray's own libraries; llmjobs uses its core alone."""
FOR_GPUS = tuple(f"bitsandbytes/libbitsandbytes_{kind}*" for kind in ("cuda", "rocm", "xpu"))


def main(kind: str) -> None:
    """Delete by pattern, compile, tell the size."""
    for pattern in NOT_READ + tuple(f"ray/{part}" for part in OF_RAY) + (FOR_GPUS if kind == "cpu" else ()):
        for path in sorted(SITE.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    compileall.compile_dir(SITE, quiet=2, workers=0, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
    size = sum(p.stat().st_size for p in SITE.rglob("*") if p.is_file() and not p.is_symlink())
    print(f"packages: {size / 1e9:.2f} GB")


if __name__ == "__main__":
    main(sys.argv[1])
