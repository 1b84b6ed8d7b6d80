"""Compressed files, opened by the suffix of their names: .gz, .bz2, .xz and .zst."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import PurePath
from typing import IO, Any

BUFFER = 2**20  # bytes that are decompressed at a time
# what the libraries raise for a file that is cut off, damaged or not compressed; see `is_fault` for the rest
FAULTS = (EOFError, zlib.error, lzma.LZMAError)


class _Zstandard(io.RawIOBase):
    """A Zstandard file, from its beginning; to go back is to begin anew, as with gzip."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._begin()

    def _begin(self) -> None:
        import pyarrow

        self.stream, self.at = pyarrow.CompressedInputStream(self.path, "zstd"), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.stream.read(len(buffer))
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("a compressed file is read from its beginning")
        if offset < self.at:
            self._begin()
        while self.at < offset and (data := self.stream.read(min(BUFFER, offset - self.at))):
            self.at += len(data)
        return self.at

    def tell(self) -> int:
        return self.at

    def close(self) -> None:
        self.stream.close()
        super().close()


def _zstandard(path: str, mode: str = "rb") -> IO[bytes]:
    return io.BufferedReader(_Zstandard(path), BUFFER)


OPENERS: dict[str, Callable[[str, Any], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _zstandard,
}
HEADS = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}


def suffix(path: str) -> str:
    """The suffix of `path` that says how it is compressed; empty where it is not."""
    last = PurePath(path).suffix.lower()
    return last if last in OPENERS else ""


def open_bytes(path: str) -> IO[bytes]:
    """What the file holds, decompressed; it can be read from its beginning again and again."""
    opened: IO[bytes] = OPENERS.get(suffix(path), open)(path, "rb")
    return opened


def is_fault(error: Exception) -> bool:
    """Whether `error` says that a compressed file is not whole, and not that it could not be read."""
    return isinstance(error, FAULTS) or (isinstance(error, OSError) and error.errno is None)
