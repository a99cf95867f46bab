"""The page as files: what lies in page/, read once, and the headers that keep the page to itself.

Owns which paths there are, their types, and the content security policy: no inline script or style, nothing from
elsewhere, nobody's frame. The page holds no secret and needs no key; what it asks the server for does. Knows nothing of
replies.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..io.digest import fingerprint

FOLDER = Path(__file__).with_name("page")
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types dompurify"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # asked about each time, and answered with 304: a new version shows at once
}


@dataclass(frozen=True)
class PageFile:
    body: bytes
    kind: str
    etag: str

    def answer(self, request: Request) -> Response:
        headers = {**HEADERS, "ETag": self.etag}
        if request.headers.get("if-none-match") == self.etag:
            return Response(status_code=304, headers=headers)
        return Response(self.body, media_type=self.kind, headers=headers)


def page_files() -> dict[str, PageFile]:
    """By path. A path that is not a key is nobody's: no name from a request ever reaches the disk."""
    found = {f"/page/{path.relative_to(FOLDER).as_posix()}": path for path in FOLDER.rglob("*") if path.suffix in TYPES}
    files = {name: _read(path) for name, path in found.items()}
    return {"/": files.pop("/page/index.html"), **files}


def _read(path: Path) -> PageFile:
    body = path.read_bytes()
    return PageFile(body, TYPES[path.suffix], f'"{fingerprint(body)}"')


def page_routes(files: dict[str, PageFile]) -> list[Route]:
    return [Route(path, file.answer, methods=["GET"], include_in_schema=False) for path, file in files.items()]
