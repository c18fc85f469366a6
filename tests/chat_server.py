"""A server on 127.0.0.1 that speaks the chat completions protocol, as badly as it is told to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Reply:
    """One answer: a text, or a status, or a body that is no chat completion."""

    text: str | None = None
    status: int = 200
    body: bytes | None = None
    headers: dict = field(default_factory=dict)
    pause: float = 0.0
    finish_reason: str = "stop"
    error: dict | None = None
    sent: int | None = None  # the connection ends after so many bytes of the body


def ten_lines(number: int) -> str:
    """Ten sentences that differ from those of every other number."""
    return "\n".join(f"{i + 1}. The bird number {number} has a red mark {i} on its bill" for i in range(10))


class ChatServer:
    """`server.replies` are given in turn, then every request gets ten new lines; `server.asked` keeps the requests."""

    def __init__(self, *replies: Reply, hook: Callable[[int], None] | None = None):
        self.replies, self.hook = list(replies), hook
        self.asked: list[dict] = []
        self.keys: list[str] = []
        self.lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server.lock:
                    server.asked.append({"path": self.path, **request})
                    server.keys.append(self.headers.get("Authorization", ""))
                    number = len(server.asked)
                    reply = server.replies.pop(0) if server.replies else Reply(ten_lines(number))
                if server.hook:
                    server.hook(number)
                time.sleep(reply.pause)
                body = server.body(reply, request["model"])
                try:
                    self.send_response(reply.status)
                    for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body[: reply.sent])
                    self.close_connection = reply.sent is not None
                except (BrokenPipeError, ConnectionResetError):
                    pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def body(self, reply: Reply, model: str) -> bytes:
        if reply.body is not None:
            return reply.body
        if reply.status != 200:
            return json.dumps({"error": reply.error or {"message": "no", "code": None}}).encode()
        message = {"role": "assistant", "content": reply.text}
        choice = {"index": 0, "message": message, "finish_reason": reply.finish_reason}
        usage = {"prompt_tokens": 20, "completion_tokens": 100, "total_tokens": 120}
        answer = {"id": "1", "object": "chat.completion", "created": 1, "model": f"{model}-2026", "choices": [choice]}
        return json.dumps(answer | {"usage": usage}).encode()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/v1"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
