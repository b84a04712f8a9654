"""TLS in front of a server that speaks none: ``python -m tests.deploy.tls_proxy PORT TARGET CERT KEY``.

The wheel's Valkey is built without TLS, and clients must connect to it with TLS all the same.
"""

from __future__ import annotations

import asyncio
import ssl
import sys

_CHUNK = 65536


async def serve(port: int, target: int, context: ssl.SSLContext) -> None:
    """Pass each connection on to ``target``, until the process is ended."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, downstream = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(_copy(reader, downstream), _copy(upstream, writer))

    server = await asyncio.start_server(handle, "127.0.0.1", port, ssl=context)
    await server.serve_forever()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # either side disconnected
    finally:
        writer.close()


if __name__ == "__main__":
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(sys.argv[3], sys.argv[4])
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), context))
