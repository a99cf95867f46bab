"""An OpenAI-compatible server on the loopback that answers with the demo model, and fails when told to.

Owns a real HTTP server and its faults. A request's answer depends on its messages and settings alone, as a real
server's does.
"""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from autodeco_edge import Engine, SamplingParams
from autodeco_edge.engine.pairing import demo_model
from autodeco_edge.text.chat import render

SLOW_S = 3.0


class ChatServer:
    """
    faults    what the next requests get instead of an answer, in order (see Handler.fail)
    always    a fault for every request, once the list is used up
    thinking  the answer's last line is the content, the lines before it the reasoning
    edit      changes the answer's object before it is sent
    """

    def __init__(self) -> None:
        self.engine = Engine(demo_model(), n_ctx=512, n_threads=1, heads=None)
        self.lock = threading.Lock()
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.reset()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"chat": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def reset(self) -> None:
        self.faults: list[str] = []
        self.always: str | None = None
        self.thinking = False
        self.edit = lambda answer: answer
        self.requests.clear()
        self.headers.clear()

    def next_fault(self) -> str | None:
        with self.lock:
            return self.faults.pop(0) if self.faults else self.always

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        params = SamplingParams(request["seed"], request["temperature"], request["top_p"], heads_mode="none")
        with self.lock:
            prompt = render(self.engine.model, request["messages"])
            ids = [step.id for step in self.engine.generate(prompt, params, max_tokens=request["max_tokens"])]
        ended = self.engine.model.is_end(ids[-1])
        text = self.engine.model.detokenize(ids).decode("utf-8", "replace")
        message = {"role": "assistant", "content": text}
        if self.thinking:
            thought, _, last = text.rpartition("\n")
            message |= {"content": last, "reasoning_content": thought}
        choice = {"index": 0, "finish_reason": "stop" if ended else "length", "message": message}
        return self.edit({"object": "chat.completion", "choices": [choice], "usage": {"completion_tokens": len(ids)}})

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self.engine.close()


class Handler(BaseHTTPRequestHandler):
    chat: ChatServer

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        fault = self.chat.next_fault()
        if self.path != "/v1/chat/completions":
            fault = "404"
        if fault:
            return self.fail(fault)
        request = json.loads(data)
        self.chat.requests.append(request)
        self.chat.headers.append(dict(self.headers))
        self.send(200, json.dumps(self.chat.answer(request)).encode())

    def fail(self, fault: str) -> None:
        if fault == "garbage":
            self.send(200, b"<html>Please log in</html>")
        elif fault == "types":
            self.send(200, b'{"choices": [{"message": {"content": 3}}]}')
        elif fault == "cut":
            self.send(200, b'{"choices": [', n_promised=1000)
        elif fault == "reset":
            self.close_connection = True
        elif fault == "slow":
            time.sleep(SLOW_S)
            self.send(200, b"{}")
        elif fault == "redirect":
            self.send(302, b"", {"Location": self.chat.url + "/elsewhere"})
        else:
            words = {"error": {"message": f"no {fault} today,\nkey {self.headers['Authorization']}"}}
            self.send(int(fault), json.dumps(words).encode(), {"Retry-After": "0"} if fault == "429" else {})

    def send(self, status: int, data: bytes, headers: dict[str, str] | None = None, n_promised: int = 0) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(n_promised or len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass
