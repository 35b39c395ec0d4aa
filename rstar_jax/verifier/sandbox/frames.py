"""Length-prefixed JSON over a stream socket: the one language between the host and its sandboxed processes."""

import json
import socket
import struct

_HEADER = struct.Struct("!I")
_LIMIT = 1 << 28  # a sandboxed process that claims to send more is lying


def send(sock: socket.socket, message: object) -> None:
    """Sends one message. ASCII JSON, so that lone surrogates in a program's text travel too."""
    data = json.dumps(message).encode("ascii")
    sock.sendall(_HEADER.pack(len(data)) + data)


def receive(sock: socket.socket) -> object | None:
    """Receives one message; None when the other side is gone.

    Raises TimeoutError when the socket's timeout passes, ValueError when the frame is not one of ours.
    """
    header = _exactly(sock, _HEADER.size)
    if header is None:
        return None
    (length,) = _HEADER.unpack(header)
    if length > _LIMIT:
        raise ValueError(f"expected a frame of at most {_LIMIT} bytes, got one of {length}")
    data = _exactly(sock, length)
    try:
        return None if data is None else json.loads(data)
    except RecursionError:
        raise ValueError("expected a frame of ours, got one that is nested too deeply") from None


def _exactly(sock: socket.socket, size: int) -> bytes | None:
    parts = []
    while size:
        part = sock.recv(min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
