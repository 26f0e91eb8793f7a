"""Bundles on ZeroMQ sockets: what both ends of every local socket share.

A message of a socket is a bundle frame, followed by a frame for each of its large elements
(`openais.wire.codec.pack_frames`).
"""

from __future__ import annotations

from collections.abc import Sequence

import zmq

from openais.wire.codec import Buffer, pack_frames, unpack_frames


def send(socket: zmq.Socket[bytes], elements: Sequence[Buffer], to: bytes | None = None) -> None:
    """Send elements as one message; to a peer of a ROUTER: without waiting.

    Raises:
        zmq.Again: the peer of a ROUTER takes no more now.
        zmq.ZMQError: a ROUTER has no such peer.
    """
    frames = pack_frames(elements)
    if to is not None:
        socket.send_multipart([to, *frames], zmq.DONTWAIT, copy=False)
    elif len(frames) == 1:
        socket.send(frames[0])
    else:
        socket.send_multipart(frames, copy=False)


def receive(socket: zmq.Socket[bytes]) -> list[Buffer]:
    """Return the elements of one message of a DEALER; large ones are not copied.

    Raises:
        zmq.Again: nothing waits.
        DecodeError: what came is not a bundle.
    """
    frame = socket.recv(zmq.DONTWAIT, copy=False)
    frames: list[Buffer] = [frame.bytes]
    while frame.more:
        frame = socket.recv(zmq.DONTWAIT, copy=False)
        frames.append(frame.buffer)
    return unpack_frames(frames)
