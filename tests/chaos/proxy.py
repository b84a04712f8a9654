"""A TCP proxy in front of the S3 server that can misbehave.

``python -m tests.chaos.proxy PORT TARGET MODE_FILE`` is a process of its own, so that it never
waits for the test's interpreter. The file holds its mode.
"""

from __future__ import annotations

import asyncio
import sys
from enum import StrEnum
from pathlib import Path

_CHUNK = 65536
_SLOW_S = 0.7
_CUT_AFTER = 300
_ERROR = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Mode(StrEnum):
    """The proxy's treatment of requests."""

    PASS = "pass"
    DOWN = "down"
    SLOW = "slow"
    ERRORS = "errors"
    CUT = "cut"


class Proxy:
    """A proxy that passes connections on, or does what its mode says."""

    def __init__(self, target: int, mode_file: Path) -> None:
        self._target = target
        self._mode_file = mode_file

    @property
    def mode(self) -> Mode:
        return Mode(self._mode_file.read_text() or Mode.PASS)

    async def serve(self, port: int) -> None:
        server = await asyncio.start_server(self._handle, "127.0.0.1", port)
        await server.serve_forever()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream, downstream = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        try:
            await asyncio.gather(
                self._requests(reader, writer, downstream), self._answers(upstream, writer, downstream)
            )
        except (OSError, asyncio.IncompleteReadError):
            pass  # either side disconnected
        finally:
            writer.close()
            downstream.close()

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, downstream: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(_CHUNK):
            mode = self.mode
            if mode is Mode.DOWN:
                break
            if mode is Mode.SLOW:
                await asyncio.sleep(_SLOW_S)
            if mode is Mode.ERRORS:
                writer.write(_ERROR)
                await writer.drain()
                break
            downstream.write(data)
            await downstream.drain()
        downstream.close()

    async def _answers(
        self, upstream: asyncio.StreamReader, writer: asyncio.StreamWriter, downstream: asyncio.StreamWriter
    ) -> None:
        while data := await upstream.read(_CHUNK):
            if self.mode is Mode.CUT:
                # The request is carried out, and its answer is lost or cut in two.
                writer.write(data[: min(_CUT_AFTER, len(data) // 2)])
                await writer.drain()
                break
            writer.write(data)
            await writer.drain()
        writer.close()
        downstream.close()


if __name__ == "__main__":
    asyncio.run(Proxy(int(sys.argv[2]), Path(sys.argv[3])).serve(int(sys.argv[1])))
