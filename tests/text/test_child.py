"""Helper processes end with their parent, whatever they are doing, and what a template makes is bounded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from autodeco_edge.errors import FormatError
from autodeco_edge.tasks import math_pool
from autodeco_edge.text.chat import render_text
from autodeco_edge.text.template import MAX_ADDED, Renderer, TemplateError, TemplateStopped, render_template

needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="processes of another kind")
GONE_SECONDS = 60.0  # of the wall clock, on a machine that has other work; the limits themselves are 1 to 4 seconds

LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}"
TEMPLATES = {"idle": "x", "endless loop": LOOP, "inside C": "{{ 10 ** (10 ** 9) }}"}

# Prints its child's id, then works on the template without a limit of its own; "forked" keeps a copy of the pipe open.
PARENT = """
import os, sys, threading, time
from autodeco_edge.text.template import Renderer
template, how = sys.argv[1:]
renderer = Renderer(max_seconds=1.0)
renderer.render("", {})
pid = renderer._child.pid
renderer.max_seconds = 600.0
if how == "forked" and os.fork() == 0:
    os.closerange(0, 3)
    time.sleep(30)
    os._exit(0)
print(pid, flush=True)
renderer.render(template, {})
time.sleep(600)
"""


def is_gone(pid: int) -> bool:
    """Whether no process, or but a dead one that nobody has asked for, has this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return not os.path.exists("/proc/self")  # no such folder: as good as it gets


def wait_until_gone(pid: int) -> None:
    end = time.monotonic() + GONE_SECONDS
    while not is_gone(pid):
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            pytest.fail("the process outlived its parent")
        time.sleep(0.1)


@needs_posix
@pytest.mark.parametrize("how", ["plain", "forked"])
@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_nothing_is_left_when_the_parent_is_killed(template, how):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, template, how], stdout=subprocess.PIPE)
    try:
        pid = int(parent.stdout.readline())
        time.sleep(0.3)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    wait_until_gone(pid)


@needs_posix
def test_nothing_is_left_when_the_terminal_closes():
    import pty

    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", PARENT, LOOP, "plain"])
    child = int(os.read(terminal, 99).split()[0])
    os.close(terminal)
    os.waitpid(pid, 0)
    wait_until_gone(child)


MATH_PARENT = """
import sys, time
from autodeco_edge.tasks.math_pool import MathPool
pool = MathPool(timeout_s=1.0)
pool.check([("1", "\\\\boxed{1}")])
print(pool._workers[0]._process.pid, flush=True)
if sys.argv[1] == "busy":
    pool._workers[0].send(0, ("1", "\\\\boxed{" + "9**9**9**" * 3 + "9}"))
time.sleep(600)
"""


@needs_posix
@pytest.mark.skipif(not math_pool.available(), reason="math-verify is not installed")
@pytest.mark.parametrize("work", ["idle", "busy"])
def test_no_judge_is_left_when_the_parent_is_killed(work):
    parent = subprocess.Popen([sys.executable, "-c", MATH_PARENT, work], stdout=subprocess.PIPE)
    try:
        pid = int(parent.stdout.readline())
        time.sleep(0.3)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    wait_until_gone(pid)


@needs_posix
def test_cpu_time_is_counted_by_the_answer(tmp_path):
    """A child that has answered many templates has as much time for the next one."""
    renderer = Renderer(max_seconds=0.5)
    for _ in range(12):
        renderer.render("{% for a in range(300) %}{% for b in range(1000) %}{% endfor %}{% endfor %}", {})
    pid = renderer._child.pid
    assert renderer.render("x", {}) == "x" and renderer._child.pid == pid
    renderer.close()


# ---- text without bounds ------------------------------------------------------------------------

FLOODS = {
    "newlines": "{{ '\n' * 16000000 }}",
    "newlines one by one": "{% for a in range(4000) %}{% for b in range(4000) %}{{ '\n' }}{% endfor %}{% endfor %}",
    "kilobytes": "{% for a in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
    "a macro that grows": "{% macro m(n) %}{% for i in range(2) %}{{ m(n - 1) if n else 'x' * 99 }}{% endfor %}{% endmacro %}{{ m(20) }}",
    "a filter": "{{ range(99999) | join('x' * 99) }}",
    "nothing, for ever": "{% for a in range(99999) %}{% for b in range(99999) %}{{ '' }}{% endfor %}{% endfor %}",
    "the message again": "{% for a in range(99999) %}{{ messages[0].content }}{% endfor %}",
}  # fmt: skip


@pytest.mark.parametrize("template", FLOODS.values(), ids=FLOODS)
def test_flood_is_stopped_early(template):
    start = time.monotonic()
    with pytest.raises(FormatError, match="made more than|did not end within|needs more memory"):
        render_text(template, [{"role": "user", "content": "hello " * 30}], "", "")
    assert time.monotonic() - start < 6  # 2 are allowed; more is the machine's other work


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc")
@pytest.mark.parametrize("flood", ["newlines", "newlines one by one", "kilobytes", "the message again"])
def test_a_flood_takes_little_memory(flood):
    renderer = Renderer()
    with pytest.raises(TemplateStopped, match="made more than"):
        renderer.render(FLOODS[flood], {"messages": [{"content": "hello " * 30}]})
    with open(f"/proc/{renderer._child.pid}/status") as file:
        peak = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    renderer.close()
    assert peak < 300_000  # KiB; Jinja folds the constant of 16 MB and writes it out as source: 160,000


def test_long_prompts_are_the_users_to_write():
    text = "wörd 日本 " * 300_000
    assert text.strip() in render_text("{{ messages[0].content }}", [{"role": "user", "content": text}], "", "")
    assert len(text) > MAX_ADDED


@pytest.mark.parametrize(
    "said", ["two\nlines", "tab\tand\x0bmore\x85", "x" * 10**6, "\n" * 10**6, "\u2028separator", "", " "]
)
def test_error_of_a_template_is_one_short_line(said):
    with pytest.raises(TemplateError) as caught:
        render_template("{{ raise_exception(said) }}", {"said": said})
    text = str(caught.value)
    assert text.strip() and len(text) <= 303 and len(text.splitlines()) == 1


@pytest.mark.parametrize("name", ["x" * 10**5, "a\nb"])
def test_names_in_errors_are_bounded_too(name):
    with pytest.raises(TemplateError) as caught:
        render_template("{{ {}[name].more }}", {"name": name})
    assert len(str(caught.value)) <= 303 and len(str(caught.value).splitlines()) == 1
