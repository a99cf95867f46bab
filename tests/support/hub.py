"""A small Hugging Face hub on the loopback interface, for the real huggingface_hub client.

Owns the three routes that a download needs (the list of a repository, HEAD and GET of a file, with ranges) and
the ways in which a real hub goes wrong: a cut connection, a slow one, another content than announced, refusals.
Every request is kept in ``requests``.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

LFS_SUFFIXES = (".gguf", ".safetensors")
CHUNK = 1 << 18


@dataclass
class File:
    """``served`` and ``announced_size`` differ from ``data`` where the hub lies."""

    data: bytes
    served: bytes
    announced_size: int
    lfs: bool

    @property
    def oid(self) -> str:
        if self.lfs:
            return hashlib.sha256(self.data).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()


@dataclass(frozen=True)
class Request:
    host: str
    method: str
    path: str
    range: str | None
    authorization: str | None


@dataclass
class Hub:
    """
    cuts              how many bytes each of the next GETs of a file sends before it hangs up
    bytes_per_second  0 = as fast as it goes
    refusals          repository -> (status, headers)
    prefix            path before the hub's own, as on a mirror that is one of many on its host
    cdn               large files are on another host: its address, to which HEAD and GET of them are redirected
    """

    repos: dict[str, dict[str, File]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    bytes_per_second: int = 0
    n_sent: int = 0
    refusals: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    cdn: str | None = None
    prefix: str = ""

    def __post_init__(self) -> None:
        hub = self

        class Handler(_Handler):
            state = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def add(self, repo: str, name: str, data: bytes, *, served: bytes | None = None, size: int | None = None) -> None:
        lfs = name.endswith(LFS_SUFFIXES)
        file = File(data, data if served is None else served, len(data) if size is None else size, lfs)
        self.repos.setdefault(repo, {})[name] = file

    def commit(self, repo: str) -> str:
        """Changes with the content, as on a real hub."""
        return hashlib.sha1("".join(name + file.oid for name, file in self.repos[repo].items()).encode()).hexdigest()

    def gets(self, name: str) -> list[Request]:
        """The GETs of one file, in order."""
        return [r for r in self.requests if r.method == "GET" and r.path.endswith("/" + name)]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    state: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(send_body=False)

    def do_GET(self) -> None:
        self._answer(send_body=True)

    def _answer(self, send_body: bool) -> None:
        path, headers = urlsplit(self.path).path.removeprefix(self.state.prefix), self.headers
        self.state.requests.append(
            Request(headers["Host"], self.command, path, headers.get("Range"), headers.get("Authorization"))
        )
        parts = path.strip("/").split("/")
        is_api = parts[:2] == ["api", "models"]
        repo = "/".join(parts[2:4] if is_api else parts[:2])
        if repo in self.state.refusals:
            status, extra = self.state.refusals[repo]
            self._send(status, extra)
        elif repo not in self.state.repos:
            self._send(404, {"X-Error-Code": "RepoNotFound"})
        elif is_api:
            body = self._tree(repo) if parts[4:5] == ["tree"] else self._listing(repo)
            self._send(200, {"Content-Type": "application/json"}, body)
        else:
            self._send_file(repo, "/".join(parts[4:]), send_body)

    def _send(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def _listing(self, repo: str) -> bytes:
        siblings = []
        for name, file in self.state.repos[repo].items():
            row = {"rfilename": name, "size": file.announced_size, "blobId": hashlib.sha1(file.data).hexdigest()}
            if file.lfs:
                row["lfs"] = {"size": file.announced_size, "sha256": file.oid, "pointerSize": 130}
            else:
                row["blobId"] = file.oid
            siblings.append(row)
        return json.dumps({"id": repo, "sha": self.state.commit(repo), "siblings": siblings}).encode()

    def _tree(self, repo: str) -> bytes:
        """What snapshot_download asks for."""
        rows = []
        for name, file in self.state.repos[repo].items():
            row = {
                "type": "file",
                "path": name,
                "size": file.announced_size,
                "oid": hashlib.sha1(file.data).hexdigest(),
            }
            if file.lfs:
                row["lfs"] = {"oid": file.oid, "size": file.announced_size, "pointerSize": 130}
            rows.append(row)
        return json.dumps(rows).encode()

    def _send_file(self, repo: str, name: str, send_body: bool) -> None:
        file = self.state.repos[repo].get(name)
        if file is None:
            self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.state.commit(repo)})
            return
        away = bool(file.lfs and self.state.cdn and self.headers["Host"] not in self.state.cdn)
        begin = self._begin(file)
        self.send_response(302 if away else 206 if begin else 200)
        if away:
            self.send_header("Location", self.state.cdn + self.path)
        self.send_header("X-Repo-Commit", self.state.commit(repo))
        self.send_header("ETag", f'"{file.oid}"')
        self.send_header("Accept-Ranges", "bytes")
        if file.lfs:
            self.send_header("X-Linked-ETag", f'"{file.oid}"')
            self.send_header("X-Linked-Size", str(file.announced_size))
        if begin and not away:
            self.send_header("Content-Range", f"bytes {begin}-{len(file.served) - 1}/{len(file.served)}")
        self.send_header("Content-Length", str(0 if away else len(file.served) - begin))
        self.end_headers()
        if send_body and not away:
            self._send_body(file.served[begin:])

    def _begin(self, file: File) -> int:
        value = self.headers.get("Range", "")
        return int(value.removeprefix("bytes=").rstrip("-")) if value else 0

    def _send_body(self, data: bytes) -> None:
        state = self.state
        limit = state.cuts.pop(0) if state.cuts else len(data)
        step = min(CHUNK, state.bytes_per_second // 100) if state.bytes_per_second else CHUNK
        try:
            for at in range(0, min(limit, len(data)), step):
                self.wfile.write(data[at : min(at + step, limit)])
                state.n_sent += step
                if state.bytes_per_second:
                    time.sleep(step / state.bytes_per_second)
        except OSError:  # the client was killed
            pass
        if limit < len(data):
            self.close_connection = True
