"""HTTP/1.1 messages over asyncio streams, as a proxy needs them."""

import asyncio
from dataclasses import dataclass

HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "host", "expect", "content-length"}


@dataclass
class Message:
    """A request or an answer: first line, headers (the proxy's own left out), body."""

    first: str
    headers: dict[str, str]
    body: bytes = b""

    def head(self) -> bytes:
        lines = [self.first, *(f"{name}: {value}" for name, value in self.headers.items()), "", ""]
        return "\r\n".join(lines).encode("latin-1")


async def read_head(reader: asyncio.StreamReader) -> tuple[Message, dict[str, str]]:
    """(a message without the headers that belong to one connection, all its headers)"""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip("\r\n").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    given = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return Message(first, {name: value for name, value in given.items() if name not in HOP_BY_HOP}), given


async def read_body(reader: asyncio.StreamReader, given: dict[str, str], bytes_per_second: int | None = None) -> bytes:
    if given.get("transfer-encoding", "").lower() != "chunked":
        body, length = b"", int(given.get("content-length", 0))
        while bytes_per_second and len(body) < length:
            body += await reader.readexactly(min(bytes_per_second // 20, length - len(body)))
            await asyncio.sleep(0.05)
        return body + await reader.readexactly(length - len(body))
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        body += (await reader.readexactly(size + 2))[:-2]
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass
    return body
