"""ZIP files: small ones with contents, and one of any size that is never held in memory."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping

_CHUNK = 64 * 1024
#: Written as every entry's date, so that the same contents give the same bytes.
_ZIP_DATE = (2026, 1, 1, 0, 0, 0)


def build_zip(entries: Mapping[str, str | bytes]) -> bytes:
    """Return a ZIP file with these entries."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name, _ZIP_DATE), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def is_zip(content: bytes) -> bool:
    """Tell whether these bytes are a sound ZIP file."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return False
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.testzip() is None


def zip_entry_names(content: bytes) -> list[str]:
    """Return the names of the files in a ZIP file."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [info.filename for info in archive.infolist() if not info.is_dir()]


class _Pipe(io.RawIOBase):
    """Takes what a ZipFile writes until somebody fetches it."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken


def stream_zip(name: str, size: int) -> Iterator[bytes]:
    """Yield a ZIP file with one stored entry of ``size`` bytes, chunk by chunk."""
    pipe = _Pipe()
    block = bytes(range(256)) * (_CHUNK // 256)
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:
        with archive.open(zipfile.ZipInfo(name, _ZIP_DATE), "w", force_zip64=True) as entry:
            left = size
            while left > 0:
                entry.write(block[: min(left, _CHUNK)])
                left -= _CHUNK
                yield pipe.take()
        yield pipe.take()
    yield pipe.take()
