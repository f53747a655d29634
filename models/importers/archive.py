"""Read members of a zip file that may be damaged or hostile."""

from __future__ import annotations

import io
import lzma
import struct
import zipfile
import zlib
from pathlib import Path

from eventsim.errors import FileFormatError

# Stored agents hardly compress; a member that grows more than this is a zip bomb.
MAX_RATIO = 200
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    OverflowError,
    NotImplementedError,  # an unknown compression
    RuntimeError,  # an encrypted member
    struct.error,
)


class Archive:
    """A zip file whose members are read whole, each up to a limit.

    Parameters
    ----------
    source : path or bytes
        The file or its content.
    where : str
        The file, for error messages.

    Raises
    ------
    FileFormatError
        If the source is not a complete zip file.
    """

    def __init__(self, source: Path | bytes, where: str) -> None:
        self.where = where
        incomplete = FileFormatError(
            "is not a complete zip file; give the file that the agent was saved to, or download "
            "it again",
            where=where,
        )
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source)
        except _DAMAGE as error:
            raise incomplete from error
        # An agent holds zips as its members: of a cut file, zipfile would find one of those.
        if min((info.header_offset for info in self._zip.infolist()), default=0) > 0:
            self._zip.close()
            raise incomplete
        self.names = self._zip.namelist()

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *unused: object) -> None:
        self._zip.close()

    def read(self, name: str, limit: int) -> bytes:
        """Return the content of member `name`, of at most `limit` bytes.

        Raises
        ------
        FileFormatError
            If the member is missing, damaged, larger than `limit`, or compressed beyond belief.
        """
        if name not in self.names:
            raise FileFormatError(
                f"holds no '{name}', so it is not a complete agent; save it again by model.save()",
                where=self.where,
            )
        try:
            info = self._zip.getinfo(name)
            if info.file_size > limit or info.file_size > MAX_RATIO * info.compress_size + 2**20:
                raise FileFormatError(
                    f"its member '{name}' says that it unpacks to {info.file_size} bytes, which no "
                    "saved agent needs; the file is refused",
                    where=self.where,
                )
            with self._zip.open(info) as member:
                content = member.read(limit + 1)
        except FileFormatError:
            raise
        except _DAMAGE as error:
            raise FileFormatError(
                f"its member '{name}' is damaged; save or download the file again",
                where=self.where,
            ) from error
        if len(content) != info.file_size:
            raise FileFormatError(
                f"its member '{name}' is cut off; save or download the file again",
                where=self.where,
            )
        return content
