"""The page in a real browser, on a real server with the demo model."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from autodeco_edge.server.page_files import POLICY, page_files
from autodeco_edge.text.plot import read_trace
from tests.support.browsing import Tab, browser
from tests.support.serving import QUESTION, WAIT, serving

ROOT = Path(__file__).resolve().parents[2]
FILES = page_files()
OTHER = "Find two numbers that make 41."


@pytest.fixture(scope="module")
def chromium():
    with browser() as running:
        yield running


@pytest.fixture
def tab(chromium, server):
    tab = Tab(chromium, server.url)
    yield tab
    tab.close()


@pytest.fixture
def page(tab):
    return tab.page


@pytest.fixture(scope="module")
def expect(chromium):
    from playwright.sync_api import expect

    expect.set_options(timeout=WAIT * 1000)
    return expect


def send(page, text=QUESTION):
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_role("button", name="Send", exact=True).click()


def ended(page, expect):
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    expect(page.locator("article.reply[aria-busy=true]")).to_have_count(0)


def ask(page, expect, text=QUESTION):
    send(page, text)
    expect(page.locator(".token").first).to_be_visible()
    ended(page, expect)


def tokens(page):
    return page.locator("#chat [role=option]")


def text_of(page):
    """As it was drawn, without the signs for blanks."""
    found = "".join(tokens(page).all_text_contents())
    return found.replace("\u200b", "").replace("·", " ").replace("⏎", "\n").replace("∎", "")


def endless(page, server, n=900, slow=True):
    """Replies do not end by themselves, and come slowly enough to be stopped: the end token is forbidden on the way to the
    real server, and the line is a slow one, unless told otherwise."""
    ids = server.post("/tokenize", {"content": "<|im_end|><|endoftext|>"}).json()["tokens"]

    def changed(route):
        body = {**route.request.post_data_json, "logit_bias": {str(i): -100 for i in ids}, "max_tokens": n}
        route.continue_(post_data=json.dumps(body))

    page.route("**/v1/chat/completions", changed)
    if slow:
        line, rate = page.context.new_cdp_session(page), 40_000  # bytes a second
        conditions = {"offline": False, "latency": 0, "downloadThroughput": rate, "uploadThroughput": -1}
        line.send("Network.enable")
        line.send("Network.emulateNetworkConditions", conditions)


# ---- the files ----------------------------------------------------------------------------------


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


# ---- chat ---------------------------------------------------------------------------------------


def test_send_and_stream(page, expect, server):
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Seed (empty: any)").fill("7")
    page.get_by_role("button", name="Close").click()
    ask(page, expect)
    wanted = server.post(
        "/v1/chat/completions", {"messages": [{"role": "user", "content": QUESTION}], "seed": 7}
    ).json()
    assert text_of(page) == wanted["choices"][0]["message"]["content"]
    mean = wanted["choices"][0]["autodeco"]["temperature"]["mean"]
    expect(page.locator(".summary")).to_contain_text(f"{mean:.2f}")
    expect(page.locator(".summary")).to_contain_text("7")
    page.get_by_role("button", name="Tokens").click()
    expect(page.locator(".reply .text")).to_contain_text("boxed")
    expect(page.locator("#chat [role=listbox]")).to_be_hidden()


def test_stop(page, expect, server):
    endless(page, server)
    send(page)
    expect(tokens(page).nth(20)).to_be_attached()
    page.get_by_role("button", name="Stop").click()
    ended(page, expect)
    expect(page.locator(".reply .state")).to_have_text("Stopped.")
    assert 20 < tokens(page).count() < 900
    server.wait_until(lambda: server.metric("autodeco_slots_busy") == 0)
    page.unroute("**/v1/chat/completions")
    ask(page, expect, OTHER)


def test_regenerate_and_back(page, expect):
    ask(page, expect)
    first = text_of(page)
    page.get_by_role("button", name="Regenerate").click()
    ended(page, expect)
    expect(page.locator(".variants")).to_contain_text("2 of 2")
    page.get_by_role("button", name="Earlier reply").click()
    expect(page.locator(".variants")).to_contain_text("1 of 2")
    assert text_of(page) == first


def test_edit(page, expect):
    ask(page, expect)
    ask(page, expect, OTHER)
    expect(page.locator("article.question")).to_have_count(2)
    page.get_by_role("button", name="Edit message 1").click()
    page.get_by_label("Edited message").fill("Find two numbers that make 62.")
    page.get_by_label("Edited message").press("Enter")
    ended(page, expect)
    expect(page.locator("article.question")).to_have_count(1)
    expect(page.locator("article.question")).to_contain_text("62")
    expect(page.locator("article.reply")).to_have_count(1)


def test_edit_can_be_left(page, expect):
    ask(page, expect)
    page.get_by_role("button", name="Edit message 1").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("article.question p")).to_have_text(QUESTION)


def test_the_system_prompt_and_the_settings_reach_the_server(page, expect):
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_role("combobox", name="Heads").select_option("none")
    page.get_by_role("spinbutton", name="Temperature").fill("0.4")
    page.get_by_role("spinbutton", name="Top-p").fill("0.9")
    page.get_by_label("P at least").fill("2")  # out of range: marked, not kept
    page.get_by_label("Longest reply, tokens").fill("6")
    page.get_by_role("button", name="Close").click()
    with page.expect_request("**/v1/chat/completions") as sent:
        send(page)
    body = sent.value.post_data_json
    assert body["messages"][0] == {"role": "system", "content": "Be brief."} and body["max_tokens"] == 6
    assert body["autodeco"] == {"heads": "none", "trace": True, "temperature_factor": 0.4, "top_p_factor": 0.9}
    expect(tokens(page)).to_have_count(6)
    tokens(page).first.click()
    expect(page.locator(".card")).to_contain_text("0.400 (constant)")


def test_a_refusal_is_shown_and_can_be_mended(page, tab, expect):
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("T at least").fill("5")
    page.get_by_label("T at most").fill("1")
    page.get_by_role("button", name="Close").click()
    send(page)
    expect(page.locator(".reply .fault")).to_contain_text("low end must not exceed")
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("T at least").fill("")
    page.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Regenerate").click()
    ended(page, expect)
    expect(tokens(page).nth(5)).to_be_visible()
    tab.complaints = [c for c in tab.complaints if "400" not in c]


def test_conversations_are_kept_and_deleted(page, expect):
    ask(page, expect)
    text = text_of(page)
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator("article")).to_have_count(0)
    ask(page, expect, OTHER)
    page.reload()
    expect(page.locator("#conversation-list li")).to_have_count(2)
    expect(page.locator("article.question")).to_contain_text("41")
    page.get_by_role("button", name=QUESTION, exact=True).click()
    expect(tokens(page).nth(5)).to_be_visible()
    assert text_of(page) == text
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name=f"Delete {QUESTION}").click()
    expect(page.locator("#conversation-list li")).to_have_count(1)
    page.reload()
    expect(page.locator("#conversation-list li")).to_have_count(1)


def test_a_page_that_is_left_in_the_middle_keeps_what_came(page, expect, server):
    endless(page, server)
    send(page)
    expect(tokens(page).nth(20)).to_be_attached()
    page.reload()
    expect(page.locator("article.question")).to_contain_text(QUESTION)
    ended(page, expect)


def test_another_conversation_while_a_reply_is_drawn(page, expect, server):
    """The one that is left is stopped and kept; one that is deleted does not come back when its reply ends."""
    ask(page, expect)
    page.get_by_role("button", name="New conversation").click()
    endless(page, server)
    send(page, OTHER)
    expect(tokens(page).nth(20)).to_be_attached()
    page.get_by_role("button", name=QUESTION, exact=True).click()
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()
    expect(page.locator("article.question")).to_have_text(re.compile("83"))
    server.wait_until(lambda: server.metric("autodeco_slots_busy") == 0)
    page.get_by_role("button", name=OTHER, exact=True).click()
    expect(page.locator(".reply .state")).to_have_text("Stopped.")
    page.get_by_role("button", name="Regenerate").click()
    expect(tokens(page).nth(20)).to_be_attached()
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name=f"Delete {OTHER}").click()
    server.wait_until(lambda: server.metric("autodeco_slots_busy") == 0)
    page.reload()
    expect(page.locator("#conversation-list li")).to_have_count(1)


# ---- tokens -------------------------------------------------------------------------------------


def test_hover_shows_the_token(page, expect):
    ask(page, expect)
    tokens(page).nth(3).hover()
    card = page.locator(".card")
    expect(card.locator("h3")).to_contain_text("Token 3")
    for name in ("id", "T", "P", "log-probability", "rank", "nucleus", "entropy"):
        expect(card.locator("dt", has_text=re.compile(f"^{name}$"))).to_have_count(1)
    expect(card.locator("tbody tr")).to_have_count(5)
    n_kept = int(card.locator("dd", has_text="token").inner_text().split()[0])
    expect(card.locator("tbody s")).to_have_count(5 - min(n_kept, 5))
    expect(tokens(page).nth(3)).to_have_attribute("aria-selected", "true")


def test_the_plot_and_the_text_are_in_step(page, expect):
    ask(page, expect)
    box = page.locator(".u-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.99, box["y"] + 20)
    last = tokens(page).count() - 1
    expect(tokens(page).nth(last)).to_have_attribute("aria-selected", "true")
    tokens(page).nth(0).hover()
    assert page.locator(".u-cursor-x").evaluate("line => new DOMMatrix(getComputedStyle(line).transform).e") < 3


@pytest.mark.parametrize("name, low, high", [("P", "0.5", "1.0"), ("entropy", "0.0", "5.0"), ("log p", "0.0", "-10.0")])
def test_switch_signal(page, expect, name, low, high):
    ask(page, expect)
    before = tokens(page).evaluate_all("all => all.map(each => each.className).join()")
    page.get_by_label(name, exact=True).check()
    expect(page.locator(".legend")).to_contain_text(low)
    expect(page.locator(".legend")).to_contain_text(high)
    assert tokens(page).evaluate_all("all => all.map(each => each.className).join()") != before
    page.reload()
    expect(page.get_by_label(name, exact=True)).to_be_checked()


def test_keyboard_only(page, expect):
    keys = page.keyboard
    page.get_by_label("Message", exact=True).focus()
    keys.type(QUESTION)
    keys.press("Enter")
    expect(page.locator(".token").first).to_be_visible()
    ended(page, expect)
    for _ in range(40):
        if page.evaluate("document.activeElement.getAttribute('role')") == "listbox":
            break
        keys.press("Shift+Tab")
    expect(page.locator("#chat [role=listbox]")).to_be_focused()
    for key in ("Home", "ArrowRight", "ArrowRight"):
        keys.press(key)
    expect(page.locator(".card h3")).to_contain_text("Token 2")
    expect(page.locator("#announcer")).to_contain_text(re.compile(r"T 0\.\d\d, P \d\.\d\d"))
    keys.press("ArrowDown")
    below = page.locator("#chat [aria-selected=true]").bounding_box()
    assert below["y"] > tokens(page).nth(2).bounding_box()["y"]
    keys.press("ArrowUp")
    expect(page.locator(".card h3")).to_contain_text("Token 2")
    keys.press("End")
    expect(tokens(page).last).to_have_attribute("aria-selected", "true")
    keys.press("Home")
    keys.press("Enter")
    expect(page.locator(".card button").first).to_be_focused()
    keys.press("Enter")
    expect(page.locator(".variants")).to_contain_text("2 of 2")


def test_what_if(page, expect, server):
    """The tokens before stay, the candidate is in its place, and what follows is what the model says to them."""
    ask(page, expect)
    before = tokens(page).all_text_contents()
    tokens(page).nth(4).click()
    row = page.locator(".card tbody tr").filter(has=page.get_by_role("button")).first
    candidate = row.locator(".candidate").inner_text()
    with page.expect_request("**/v1/chat/completions") as sent:
        row.get_by_role("button").click()
    ended(page, expect)
    after = tokens(page).all_text_contents()
    assert after[:4] == before[:4] and after[4].strip("\u200b") == candidate.strip("\u200b") and len(after) > 5
    expect(page.locator(".note")).to_contain_text("From token 4 on")
    body = {**sent.value.post_data_json, "stream": False}
    del body["stream_options"]
    assert len(body["autodeco"]["reply_start"]) == 5
    wanted = server.post("/v1/chat/completions", body).json()["choices"][0]
    begun = server.post("/detokenize", {"tokens": body["autodeco"]["reply_start"]}).json()["content"]
    assert text_of(page) == begun + wanted["message"]["content"]
    page.get_by_role("button", name="Tokens").click()
    shown = page.locator(".reply .text").inner_text()
    assert re.sub(r"\W", "", shown) == re.sub(r"\W", "", begun + wanted["message"]["content"])


THINKS = """{% for m in messages %}<|im_start|>{{ m['role'] }}
{{ m['content'] }}<|im_end|>
{% endfor %}<|im_start|>assistant
<think>
"""


def test_thought_is_told_apart(chromium, expect, tmp_path):
    (tmp_path / "think.jinja").write_text(THINKS)
    with serving("--chat-template-file", str(tmp_path / "think.jinja")) as served:
        tab = Tab(chromium, served.url)
        ask(tab.page, expect)
        expect(tab.page.locator(".token.thought").first).to_be_visible()
        thought = tab.page.locator(".token.thought").count()
        tab.page.get_by_role("button", name="Tokens").click()
        expect(tab.page.locator("details.thought")).to_be_visible()
        tab.page.get_by_role("button", name="Tokens").click()
        tokens(tab.page).nth(2).click()
        tab.page.locator(".card button").first.click()
        ended(tab.page, expect)
        assert tab.page.locator(".token.thought").count() > 3 and thought > 3
        tab.close()


# ---- compare ------------------------------------------------------------------------------------


def compare(page, expect, preset="constant"):
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_label("Setups").select_option(preset)
    page.get_by_label("Prompt", exact=True).fill(QUESTION)
    page.get_by_role("button", name="Compare them").click()
    expect(page.locator("#announcer")).to_have_text("The comparison is complete.")


def test_compare_heads_with_a_constant(page, expect):
    compare(page, expect)
    columns = page.locator(".beside section")
    expect(columns).to_have_count(2)
    row = page.locator(".summary tr").filter(has=page.get_by_role("rowheader", name="T", exact=True)).locator("td")
    assert row.nth(1).inner_text() == "0.70 (0.70 to 0.70)" != row.nth(0).inner_text()
    seeds = page.locator(".summary tr").filter(has_text="seed").locator("td").all_inner_texts()
    assert seeds[0] == seeds[1]
    columns.nth(1).locator("[role=option]").nth(2).hover()
    expect(page.locator(".card")).to_contain_text("(constant)")


def test_compare_commands(page, expect):
    page.on("request", lambda r: r.method == "POST" and sent.append(r.post_data_json["messages"][-1]["content"]))
    sent: list[str] = []
    compare(page, expect, "diversity")
    expect(page.locator(".beside section")).to_have_count(3)
    assert sorted(text.removeprefix(QUESTION).strip()[-5:] for text in sent) == ["", " low.", "high."]
    assert len({*sent}) == 3 and all(text.startswith(QUESTION) for text in sent)


def test_a_comparison_can_be_stopped(page, expect, server):
    endless(page, server)
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_label("Prompt", exact=True).fill(QUESTION)
    page.get_by_role("button", name="Compare them").click()
    expect(page.locator(".beside [role=option]").nth(20)).to_be_attached()
    page.locator("#compare").get_by_role("button", name="Stop").click()
    expect(page.locator(".beside .state", has_text="Stopped.")).to_have_count(2)


def test_a_trace_stands_beside(page, expect, tmp_path):
    ask(page, expect)
    path = saved(page, "Save as JSONL", tmp_path)
    compare(page, expect)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Add a trace").click()
    chooser.value.set_files(path)
    expect(page.locator(".beside section")).to_have_count(3)
    expect(page.locator(".summary thead")).to_contain_text(path.name)


# ---- files --------------------------------------------------------------------------------------


def saved(page, name, folder):
    with page.expect_download() as download:
        page.get_by_role("button", name=name).click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_export_is_what_plot_reads(page, expect, tmp_path):
    ask(page, expect)
    trace = read_trace(saved(page, "Save as JSONL", tmp_path))
    assert "".join(t["text"] for t in trace.tokens) == text_of(page)
    assert trace.summary["n_tokens"] == len(trace.tokens) and trace.summary["finish_reason"] == "stop"
    assert abs(trace.summary["mean_temperature"] - sum(trace.values("temperature")) / len(trace.tokens)) < 1e-9


def test_export_a_picture(page, expect, tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    ask(page, expect)
    with pillow.open(saved(page, "Save as PNG", tmp_path)) as picture:
        assert picture.format == "PNG" and picture.width == 2000 and picture.height > 400
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 20


def open_trace(page, path):
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Open a trace").click()
    chooser.value.set_files(path)


def test_open_a_trace_of_run(page, expect, tmp_path):
    path = tmp_path / "reply.jsonl"
    command = [sys.executable, "-m", "autodeco_edge", "run", QUESTION, "--seed", "3", "-t", "1", "--jsonl"]
    path.write_bytes(subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=WAIT).stdout)
    records = read_trace(path).tokens
    open_trace(page, path)
    expect(tokens(page)).to_have_count(len(records))
    tokens(page).nth(2).click()
    expect(page.locator(".card")).to_contain_text(f"{records[2]['temperature']:.3f}")
    expect(page.get_by_role("button", name="Regenerate")).to_have_count(0)
    assert saved(page, "Save as JSONL", tmp_path).read_text().count("\n") == len(records) + 1


BAD = {
    "empty": "", "prose": "hello", "no-token": '{"done": true}', "array": "[1]", "null": "null", "number": "7",
    "text-is-number": '{"text": 1, "temperature": 1, "top_p": 1}', "t-is-text": '{"text": "a", "temperature": "1", "top_p": 1}',
    "half": '{"text": "a", "tempe', "bytes": "\x00\x01\x02",
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_trace_is_one_line(page, expect, tmp_path, name):
    path = tmp_path / f"{name}.jsonl"
    path.write_text(BAD[name])
    open_trace(page, path)
    expect(page.locator("#notice")).to_contain_text("choose a file that run --trace wrote")
    expect(page.locator("article")).to_have_count(0)


def test_a_hostile_trace_stays_text(page, expect, tmp_path):
    evil = '<img src=x onerror="document.title=1"><script>document.title=1</script>[x](javascript:alert(1))'
    record = {
        "text": evil,
        "temperature": 1e300,
        "top_p": None,
        "bytes": ["<", -1, 999],
        "top": [{"id": 1, "text": evil, "logprob": -1, "kept": True}],
        "n_kept": 3,
    }
    path = tmp_path / "evil.jsonl"
    path.write_text(json.dumps(record) + "\n")
    open_trace(page, path)
    tokens(page).first.click()
    expect(page.locator(".card")).to_contain_text("onerror")
    page.get_by_role("button", name="Tokens").click()
    expect(page.locator(".reply .text")).to_contain_text("x")
    assert page.locator(".reply .text :is(img, script)").count() == 0
    assert page.locator(".reply .text [href]").count() == 0
    assert page.title() == "autodeco-edge"


# ---- looks --------------------------------------------------------------------------------------

CONTRAST = """() => {
  const light = (c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const luminance = (text) => { const [r, g, b] = text.match(/[\\d.]+/g).map(Number); return 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b); };
  return [...document.querySelectorAll(".scale i")].map((each) => {
    const { backgroundColor, color } = getComputedStyle(each);
    const [a, b] = [luminance(backgroundColor), luminance(color)].sort((x, y) => y - x);
    return [luminance(backgroundColor), (a + 0.05) / (b + 0.05)];
  });
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_tints_read_in_either_theme(page, expect, theme):
    page.get_by_label("Theme").select_option(theme)
    found = page.evaluate(CONTRAST)
    lightness = [each[0] for each in found]
    assert len(found) == 16 and all(contrast >= 4.5 for _, contrast in found)
    assert lightness == sorted(lightness, reverse=theme == "light")  # high stands out from the paper
    page.reload()
    expect(page.get_by_label("Theme")).to_have_value(theme)


def test_the_system_s_theme(chromium, server):
    papers = []
    for scheme in ("light", "dark"):
        tab = Tab(chromium, server.url, color_scheme=scheme)
        papers.append(tab.page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))
        tab.close()
    assert papers[0] != papers[1]


def test_narrow_screen(page, expect):
    page.set_viewport_size({"width": 360, "height": 700})
    ask(page, expect)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for each in (page.locator(".token").first, page.locator(".plot"), page.get_by_role("button", name="Send")):
        expect(each).to_be_in_viewport()
    expect(page.locator("#conversations")).to_be_hidden()
    page.get_by_role("button", name="Conversations").click()
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator("#conversations")).to_be_hidden()
    expect(page.locator("article")).to_have_count(0)


AXE = """async () => (await axe.run(document, {resultTypes: ["violations"]})).violations
  .filter((v) => ["serious", "critical"].includes(v.impact)).map((v) => [v.id, v.nodes.map((n) => n.html).slice(0, 3)])"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_serious_fault(page, expect, theme):
    axe = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
    source = next(Path(axe.__file__).parent.rglob("axe.min.js")).read_text(encoding="utf-8")
    page.get_by_label("Theme").select_option(theme)
    page.evaluate(source)
    faults = []

    def look(place):
        faults.extend((place, *fault) for fault in page.evaluate(AXE))

    look("empty")
    ask(page, expect)
    tokens(page).nth(3).click()
    look("tokens")
    page.get_by_role("button", name="Tokens").click()
    look("text")
    page.get_by_role("button", name="Edit message 1").click()
    look("edit")
    page.get_by_role("button", name="Settings").click()
    look("settings")
    page.get_by_role("button", name="Close").click()
    compare(page, expect)
    look("compare")
    assert faults == []


# ---- long replies -------------------------------------------------------------------------------

FRAMES = """() => {
  window.longest = 0;
  let last = performance.now();
  const tick = (now) => { window.longest = Math.max(window.longest, now - last); last = now; requestAnimationFrame(tick); };
  requestAnimationFrame(tick);
}"""


def long_stream(n):
    """The server's own chunks of one real reply, as often as it takes."""
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    top = [{"id": i, "token": f" w{i}", "logprob": -1.0 - i, "bytes": []} for i in range(10)]
    for i in range(n):
        text = "\n" if i % 40 == 39 else f" w{i % 97}"
        record = {"index": i, "id": i % 97, "bytes": list(text.encode()), "text": text, "temperature": (i % 12) / 10, "top_p": 0.9,
                  "temperature_eff": 1, "top_p_eff": 0.9, "n_kept": 3, "entropy": 1.0, "max_prob": 0.5, "logprob": -1.0}  # fmt: skip
        entry = {
            "id": i % 97,
            "token": text,
            "bytes": [],
            "logprob": -1.0,
            "top_logprobs": top,
            "temperature": 1,
            "top_p": 0.9,
        }
        choice = {
            "index": 0,
            "delta": {"content": text},
            "logprobs": {"content": [entry]},
            "finish_reason": None,
            "autodeco": {"trace": [record]},
        }
        if i == n - 1:
            choice = {**choice, "finish_reason": "length"}
        yield f"data: {json.dumps({**head, 'choices': [choice]})}\n\n"
    yield "data: [DONE]\n\n"


@pytest.mark.parametrize("view", ["tokens", "text"])
def test_4000_tokens_stay_smooth(page, expect, view):
    if view == "text":
        ask(page, expect)
        page.get_by_role("button", name="Tokens").click()
    body = "".join(long_stream(4000))
    page.route("**/v1/chat/completions", lambda route: route.fulfill(content_type="text/event-stream", body=body))
    page.evaluate(FRAMES)
    send(page)
    ended(page, expect)
    expect(page.locator(".summary")).to_contain_text("4000")
    took = page.evaluate("window.longest")
    print(f"longest frame while 4,000 tokens came, as {view}: {took:.0f} ms")
    assert took < 3000
    if view == "text":
        assert page.locator("#chat .token:visible").count() == 0
        return
    page.evaluate("window.longest = 0")
    for name in ("P", "entropy", "T"):
        page.get_by_label(name, exact=True).check()
    tokens(page).nth(3990).scroll_into_view_if_needed()
    tokens(page).nth(3990).hover()
    expect(page.locator(".card h3")).to_contain_text("Token 3990")
    took = page.evaluate("window.longest")
    print(f"longest frame while the signal changed three times: {took:.0f} ms")
    assert took < 2000


def test_more_tokens_than_the_page_shows_at_once(page, expect, tmp_path):
    path = tmp_path / "long.jsonl"
    record = {"text": " a", "temperature": 0.5, "top_p": 0.9}
    path.write_text(f"{json.dumps(record)}\n" * 12_000)
    open_trace(page, path)
    expect(tokens(page)).to_have_count(5000)
    page.get_by_role("button", name="Next 5000").click()
    expect(page.locator(".more")).to_contain_text("Tokens 5000 to 9999 of 12000")
    page.get_by_role("button", name="Next 2000").click()
    expect(tokens(page)).to_have_count(2000)
    page.get_by_role("button", name="Back").click()
    expect(tokens(page)).to_have_count(5000)


# ---- the server ---------------------------------------------------------------------------------


def test_the_server_goes_and_comes_back(chromium, expect):
    with serving() as first:
        port = first.url.rpartition(":")[2]
        tab = Tab(chromium, first.url)
        page = tab.page
        endless(page, first, slow=False)  # what a slow line holds back would come when the server is gone
        send(page)
        first.wait_until(lambda: first.metric("autodeco_first_token_seconds_count") == 1)
        time.sleep(0.05)  # a whole reply takes half a second, too little for a look at the page
        first.process.kill()
        first.process.wait()
        expect(page.locator("#notice")).to_contain_text("does not answer")
        expect(page.locator(".reply .fault")).to_be_visible()
        assert 0 < tokens(page).count() < 900
    page.unroute("**/v1/chat/completions")
    with serving("--port", port):
        expect(page.locator("#notice")).to_be_hidden()
        page.get_by_role("button", name="Regenerate").click()
        ended(page, expect)
        expect(page.locator(".variants")).to_contain_text("2 of 2")
        expect(page.locator(".reply .state")).to_have_text("")
        tab.close(expected=("net::ERR", "503"))


def test_plain_http_from_another_name(chromium, expect):
    """Such a page is no "secure context": the browser takes some of its tools away."""
    with serving("--allow-host", "page.test") as served:
        tab = Tab(chromium, served.url.replace("127.0.0.1", "page.test"))
        assert tab.page.evaluate("isSecureContext") is False
        ask(tab.page, expect)
        tokens(tab.page).nth(2).hover()
        expect(tab.page.locator(".card")).to_be_visible()
        tab.close(expected=("Cross-Origin-Opener-Policy",))


def test_the_key_is_asked_for(chromium, expect):
    with serving("--api-key", "open-sesame") as served:
        assert httpx.get(served.url).status_code == 200 and httpx.get(served.url + "/props").status_code == 401
        tab = Tab(chromium, served.url)
        page = tab.page
        dialog = page.get_by_role("dialog", name="Key")
        expect(dialog).to_be_visible()
        page.get_by_role("textbox", name="Key").fill("wrong")
        page.get_by_role("button", name="Use it").click()
        expect(dialog).to_contain_text("not one of this server's")
        page.get_by_role("textbox", name="Key").fill("open-sesame")
        page.keyboard.press("Enter")
        expect(page.locator("#model")).to_contain_text("heads")
        ask(page, expect)
        page.reload()
        expect(page.locator("#model")).to_contain_text("heads")  # it is kept for the tab
        assert "open-sesame" not in page.evaluate("JSON.stringify(localStorage)")
        tab.close(expected=("401",))
