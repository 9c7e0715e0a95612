"""Images from an OpenIGTLink server (3D Slicer, PLUS, a probe's own software). Needs the extra `igtl`.

Messages are parsed by pyigtl, received here: pyigtl's client does not notice that the server has gone (it then spins on
an empty socket), takes any message size, gives up a connection attempt after 10 ms, and prints tracebacks.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from edgeseg.errors import BadInput, MissingDependency, NoSuchDevice
from edgeseg.frame_source import Counts, FrameSource, SourceKind, square_mm
from edgeseg.images import check_pixels
from edgeseg.sources.live import Gone, Newest, Shot, items, keep_reading
from edgeseg.types import Array, Frame

PORT = 18944
PATIENCE_S = 30.0

_CONNECT_TIMEOUT_S, _WAIT_S, _STALL_S = 3.0, 0.1, 5.0
_LARGEST_BODY = 1 << 29
# Column norms of an identity matrix: what senders give that know no spacing.
_NO_SPACING = 1.0


def open_igtl(spec: str, *, patience_s: float = PATIENCE_S) -> FrameSource:
    """Open `igtl://HOST:PORT` or `igtl://HOST:PORT/DEVICE`; the port is 18944 where none is given.

    Without DEVICE the first one that sends an image is kept to. The pixel size is that of the image's matrix, where
    both axes agree and it is not exactly 1 (what a sender writes that knows none). `captured_s` is when it arrived.

    Args:
        spec: as above.
        patience_s: how long to wait for a server that went away.

    Raises:
        MissingDependency: pyigtl is not installed.
        NoSuchDevice: no connection.
        BadInput: the form is not one of these; later, a server that sends what is no frame.
    """
    device = _Server(spec)
    try:
        device.open()
    except Gone as gone:
        raise NoSuchDevice(f"{device.name} cannot be reached: {gone}") from None
    counts, stopped = device.counts, device.stopped
    newest = Newest(keep_reading(device, device.name, counts, stopped, patience_s), stopped, device.close)
    return FrameSource(
        device.name,
        SourceKind.IGTL,
        items(newest.shots(), device.name.removeprefix("igtl://"), counts),
        live=True,
        counts=counts,
        stop=newest.stop,
        close=newest.join,
    )


class _Server:
    def __init__(self, spec: str) -> None:
        try:
            parts = urlsplit(spec)
            self._host, self._port = parts.hostname or "", parts.port or PORT
        except ValueError as error:
            raise BadInput(f"{spec}: {error}, expected igtl://HOST:PORT") from None
        if parts.scheme != "igtl" or not self._host or parts.query or parts.username:
            raise BadInput(f"{spec} is no OpenIGTLink server, expected igtl://HOST:PORT or igtl://HOST:PORT/DEVICE")
        self.name = f"igtl://{self._host}:{self._port}"
        self.counts = Counts()
        self.stopped = threading.Event()
        self._wanted = unquote(parts.path.strip("/"))
        self._messages = _import_messages()
        self._socket: socket.socket | None = None

    def open(self) -> None:
        try:
            self._socket = socket.create_connection((self._host, self._port), _CONNECT_TIMEOUT_S)
        except OSError as error:
            raise Gone(error.strerror or str(error)) from None
        # A cable that is pulled sends no word of it: ask after 5 s of silence, give up 6 s later.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 3)):
            self._socket.setsockopt(socket.IPPROTO_TCP, option, value)
        self._socket.setblocking(False)

    def read(self) -> Shot | None:
        base = self._messages.MessageBase
        if not self._wait(_WAIT_S):
            return None
        header = self._receive(base.IGTL_HEADER_SIZE)
        if header is None:
            return None
        try:
            fields = base.parse_header(bytes(header))
        except ValueError:
            raise BadInput(f"{self.name} sends no OpenIGTLink message, expected its header") from None
        size, kind = fields["body_size"], fields["message_type"]
        if size > _LARGEST_BODY:
            raise BadInput(f"{self.name} announces a message of {size} bytes, expected at most {_LARGEST_BODY}")
        body = self._receive(size)
        if body is None or kind != "IMAGE" or (self._wanted and fields["device_name"] != self._wanted):
            return None
        captured_s = time.monotonic()
        message = self._parse(fields, bytes(body))
        if message is None:
            self.counts.damaged += 1
            return None
        frame = _to_frame(message.image, self.name)
        self._wanted = self._wanted or fields["device_name"]
        return Shot(frame, captured_s, _pixel_size(message.ijk_to_world_matrix))

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _parse(self, fields: dict[str, Any], body: bytes) -> Any:
        message = self._messages.ImageMessage()
        try:
            message.unpack(fields, body)
        except Exception:
            # pyigtl checks nothing: a damaged body fails in whatever it is used for first.
            return None
        return message

    def _wait(self, seconds: float) -> bool:
        assert self._socket is not None
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        return bool(poller.poll(seconds * 1e3))

    def _receive(self, count: int) -> bytearray | None:
        """So many bytes; None where the source was closed meanwhile. Raises Gone."""
        assert self._socket is not None
        # Grows with what arrives: a size that is only announced costs nothing.
        found = bytearray()
        heard_s = time.monotonic()
        while len(found) < count:
            if self.stopped.is_set():
                return None
            if not self._wait(_WAIT_S):
                if time.monotonic() - heard_s > _STALL_S:
                    raise Gone(f"it stopped within a message, for {_STALL_S:g} s")
                continue
            try:
                part = self._socket.recv(min(count - len(found), 1 << 20))
            except BlockingIOError:
                continue
            except OSError as error:
                raise Gone(error.strerror or str(error)) from None
            if not part:
                raise Gone("it closed the connection")
            found += part
            heard_s = time.monotonic()
        return found


def _import_messages() -> Any:
    try:
        import pyigtl.messages
    except ModuleNotFoundError as error:
        if error.name != "pyigtl":
            raise
        raise MissingDependency("pyigtl", "an OpenIGTLink source", "igtl") from error
    return pyigtl.messages


def _to_frame(image: Array, name: str) -> Frame:
    """[1, H, W] or [1, H, W, C] as [H, W] gray or [H, W, 3] RGB uint8; 16 bits keep their upper byte."""
    channels = image.shape[3] if image.ndim == 4 else 1
    if image.shape[0] != 1 or channels not in (1, 3, 4) or image.dtype.kind != "u" or image.dtype.itemsize > 2:
        raise BadInput(
            f"{name} sends images of {image.shape[0]} slices, {channels} components, {image.dtype}, "
            "expected one slice, gray, RGB or RGBA, 8 or 16 bits unsigned"
        )
    try:
        check_pixels(image.shape[2], image.shape[1])
    except BadInput as error:
        raise BadInput(f"{name} {error}") from None
    plane = image[0] if image.dtype.itemsize == 1 else (image[0] >> 8).astype(np.uint8)
    plane = plane[:, :, :3] if channels == 4 else plane.reshape(plane.shape[:2]) if channels == 1 else plane
    return np.ascontiguousarray(plane)


def _pixel_size(matrix: Array) -> float | None:
    across, down = (float(np.linalg.norm(matrix[:3, axis])) for axis in (0, 1))
    return None if across == down == _NO_SPACING else square_mm((across, down))
