"""The page's files: which there are, under which policy they come, and nothing else."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from autodeco_edge.server.page_files import POLICY, page_files
from tests.support.serving import WAIT

ROOT = Path(__file__).resolve().parents[3]


FILES = page_files()


@pytest.mark.parametrize("path", sorted(FILES))
def test_a_file_comes_under_the_policy(server, path):
    answer = httpx.get(server.url + path)
    assert answer.status_code == 200 and answer.content == FILES[path].body
    assert answer.headers["content-security-policy"] == POLICY and "unsafe" not in POLICY and "http" not in POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    again = httpx.get(server.url + path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/page", "/page/", "/page/index.html", "/page/js", "/page/js/", "/page/js/../js/main.js", "/page/../guard.py",
        "/page/%2e%2e/guard.py", "/page/..%2fguard.py", "/page//js/main.js", "/page/js/main.js/", "/page/js/MAIN.js",
        "/page/vendor/README.md", "/page/js/main.js%00", "/page\\js\\main.js", "//page/js/main.js", "/page/js/main.js;x",
    ],
)  # fmt: skip
def test_nothing_else_is_served(server, path):
    with socket.create_connection(server.url.removeprefix("http://").split(":"), WAIT) as line:
        line.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert line.recv(100).split()[1] in (b"404", b"400")


@pytest.mark.parametrize("path", ["/", "/page/js/main.js"])
def test_a_foreign_host_gets_no_page(server, path):
    assert httpx.get(server.url + path, headers={"Host": "evil.example"}).status_code == 421
    assert httpx.post(server.url + path, json={}).status_code in (404, 405)


def test_the_page_names_only_files_that_are_there():
    for path, file in FILES.items():
        text = file.body.decode() if "vendor" not in path else ""
        folder = path.rpartition("/")[0]
        for name in re.findall(r'(?:from|import) "(\./[^"]+|\.\./[^"]+)"', text):
            assert str(Path(folder, name)).replace("/js/../", "/") in FILES, (path, name)
        for name in re.findall(r'(?:src|href)="([^"#]+)"', text) if path == "/" else ():
            assert "/" + name in FILES, name
        assert "innerHTML" not in text and "style=" not in text and "onclick=" not in text


def test_libraries_are_those_that_the_table_names():
    done = subprocess.run([sys.executable, ROOT / "docs" / "make_page_libraries.py", "--check"])
    assert done.returncode == 0, "run  python docs/make_page_libraries.py"
