"""Numba kernels: flat arrays in, flat arrays out, a status code back.

Numba keeps compiled kernels beside the sources and compiles a function again when its own file has
changed, but not when one has that it calls. So what was compiled from other sources than the
present ones is removed before any kernel is loaded.
"""

import contextlib as _contextlib
import hashlib as _hashlib
from pathlib import Path as _Path


def _drop_stale() -> None:
    folder = _Path(__file__).parent
    cache, digest = folder / "__pycache__", _hashlib.sha256()
    with _contextlib.suppress(OSError):
        for source in sorted(folder.glob("*.py")):
            digest.update(source.read_bytes())
        stamp = cache / "kernels.sha256"
        if stamp.is_file() and stamp.read_text() == digest.hexdigest():
            return
        for index in cache.glob("*.nbi"):
            index.unlink(missing_ok=True)
        cache.mkdir(exist_ok=True)
        stamp.write_text(digest.hexdigest())


_drop_stale()
