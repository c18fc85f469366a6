"""A web server on 127.0.0.1 that is as unreliable as it is told to be."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Behaviour:
    """How one path answers. `cut`: bytes after which each connection breaks, in turn (then no more breaks).

    always_cut: the same for all. to: redirect. pause: seconds per 4 kB. stall: falls silent there. type, tag: its headers.
    length: does it say how long the content is. shift: how many bytes before the asked one it begins. busy: times of 503.
    """

    content: bytes = b""
    status: int = 200
    ranges: bool = True
    cut: list[int] = field(default_factory=list)
    always_cut: int | None = None
    to: str | None = None
    pause: float = 0.0
    stall: int | None = None
    type: str = "application/octet-stream"
    tag: str | None = '"1"'
    length: bool = True
    shift: int = 0
    busy: int = 0


class Server:
    """`server[path] = Behaviour(...)`; `server.url(path)`; `server.asked` lists (path, Range, If-Range) of every request."""

    def __init__(self):
        self.answers: dict[str, Behaviour] = {}
        self.asked: list[tuple[str, str | None, str | None]] = []
        self.closing = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                server.asked.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
                self.close_connection = True
                answer(self, server.answers.get(self.path), server.closing)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True

    def __setitem__(self, path: str, behaviour: Behaviour) -> None:
        self.answers[path] = behaviour

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.http.server_port}{path}"


def answer(request: BaseHTTPRequestHandler, how: Behaviour | None, closing: threading.Event) -> None:
    if how is None:
        return head(request, 404, {"Content-Length": "0"})
    if how.busy:
        how.busy -= 1
        return head(request, 503, {"Content-Length": "0"})
    if how.to:
        return head(request, 302, {"Location": how.to, "Content-Length": "0"})
    if how.status != 200:
        return head(request, how.status, {"Content-Length": "0"})
    total, start, wanted = len(how.content), 0, request.headers.get("Range", "")
    same = request.headers.get("If-Range") in (None, how.tag)
    if how.ranges and wanted.startswith("bytes=") and same:
        start = int(wanted[6:].rstrip("-")) - how.shift
    headers = {"Content-Type": how.type, **({"ETag": how.tag} if how.tag else {})}
    if start >= total > 0:
        return head(request, 416, {"Content-Range": f"bytes */{total}", "Content-Length": "0"})
    if start:
        headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
    if how.length:
        headers["Content-Length"] = str(total - start)
    head(request, 206 if start else 200, headers)
    cut = how.cut.pop(0) if how.cut else how.always_cut
    body = how.content[start : total if cut is None else min(total, start + cut)]
    try:
        for at in range(0, len(body), 4096):
            if how.stall is not None and start + at >= how.stall:
                closing.wait(20)
                return
            request.wfile.write(body[at : at + 4096])
            if how.pause:
                time.sleep(how.pause)
    except (BrokenPipeError, ConnectionResetError):
        pass


def head(request: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.send_header("Connection", "close")
    request.end_headers()


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.http.shutdown()
        server.http.server_close()
