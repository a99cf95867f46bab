"""Ctrl-Z in a conversation under a shell with job control: the shell has its terminal back, and `fg` brings the line."""

from __future__ import annotations

import os
import shutil
import sys

import pytest

pexpect = pytest.importorskip("pexpect")
BASH = shutil.which("bash")


@pytest.mark.skipif(BASH is None or sys.platform == "win32", reason="needs a shell with job control")
def test_ctrl_z_and_fg(letters, home):
    environment = {**os.environ, "TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1"}
    options = {"encoding": "utf-8", "codec_errors": "replace", "timeout": 120, "dimensions": (30, 200)}
    shell = pexpect.spawn(BASH, ["--norc", "--noprofile", "-i"], env=environment, **options)
    try:
        chat = f"{sys.executable} -m autodeco_edge run -t 1 --seed 1 -n 2 -m {letters.gguf} --heads {letters.heads}"
        shell.sendline(chat)
        shell.expect_exact("/help lists the commands")
        assert shell.waitnoecho(timeout=60)
        shell.send("half a line\x1a")
        shell.expect_exact("Stopped")
        shell.sendline(r"stty -a | tr ' ;' '\n\n' | grep -cx -e icanon -e echo -e isig; echo there")
        shell.expect(r"3\s+there")
        shell.sendline("fg")
        shell.expect_exact("> half a line")
        shell.send("\r")
        shell.expect(r"context \d+/512 · mean T")
        shell.send("/exit\r")
        shell.sendline("echo code $?")
        shell.expect(r"code 0\s")
    finally:
        shell.close(force=True)
