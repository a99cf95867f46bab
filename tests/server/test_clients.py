"""Programs that people use with such a server: each does what its documentation says, against ours.

The types of openai-python are generated from the API's own OpenAPI document; here they judge our answers strictly. The
others skip where they are not installed (`pip install "autodeco-edge[clients]"`, npm). What Open WebUI sends is written
down by hand from its documentation.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from openai.types import Completion, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.shared import ErrorObject

from autodeco_edge.engine.pairing import demo_model
from tests.support.serving import NAME, QUESTION, WAIT, ask, serving

CHAT = "/v1/chat/completions"


def needs(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")


def run(command: list[str], seconds: float = WAIT, **environment: str) -> str:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds,
        env={**os.environ, "OPENAI_API_KEY": "none", **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


# ---- the API's own types ------------------------------------------------------------------------

PAIR = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": {"type": "integer"}}}
BODIES = {
    "plain": ask(seed=1),
    "logprobs": ask(seed=1, logprobs=True, top_logprobs=5),
    "several": ask(seed=1, n=3, max_tokens=5),
    "length": ask(seed=1, max_tokens=1),
    "stop": ask(seed=1, stop=["8", "zz"]),
    "format": ask(seed=1, response_format=PAIR, logprobs=True),
    "trace": ask(seed=1, autodeco={"trace": True}, logprobs=True),
    "bias": ask(seed=1, logit_bias={"5": -100}, frequency_penalty=0.5),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_chat_is_what_the_api_says(server, name):
    answer = server.post(CHAT, BODIES[name])
    found = ChatCompletion.model_validate_json(answer.text, strict=True)
    assert found.object == "chat.completion" and found.usage.total_tokens > 0
    body = {**BODIES[name], "stream": True, "stream_options": {"include_usage": True}}
    lines = server.post(CHAT, body).text.split("\n\n")
    chunks = [ChatCompletionChunk.model_validate_json(e[6:], strict=True) for e in lines if e.startswith("data: {")]
    assert chunks[-1].usage.total_tokens == found.usage.total_tokens and chunks[-1].choices == []
    ends = [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason]
    assert sorted(ends) == sorted(c.finish_reason for c in found.choices)


@pytest.mark.parametrize("more", [{}, {"logprobs": 0}, {"logprobs": 3, "n": 2}, {"prompt": ["a", "b"]}, {"stop": "5"}])
def test_a_text_is_what_the_api_says(server, more):
    body = {"prompt": "What is 2 + 3?", "seed": 1, "max_tokens": 6, **more}
    Completion.model_validate_json(server.post("/v1/completions", body).text, strict=True)
    for event in server.post("/v1/completions", {**body, "stream": True}).text.split("\n\n"):
        if event.startswith("data: {"):  # null until the end, as the API has it and its document forgets
            Completion.model_validate_json(
                event[6:].replace('"finish_reason":null', '"finish_reason":"stop"'), strict=True
            )


def test_models_and_errors_are_what_the_api_says(server):
    for card in httpx.get(server.url + "/v1/models").json()["data"]:
        Model.model_validate(card, strict=True)
    for answer in (server.post(CHAT, {}), server.post(CHAT, ask(model="x")), httpx.get(server.url + "/none")):
        ErrorObject.model_validate(answer.json()["error"], strict=True)


# ---- programs -----------------------------------------------------------------------------------

SCRIPT = """
import OpenAI from "openai";
const client = new OpenAI({ baseURL: process.argv[2] + "/v1", apiKey: "none" });
const request = { model: "NAME", messages: [{ role: "user", content: "QUESTION" }], seed: 1 };
const whole = await client.chat.completions.create({ ...request, logprobs: true });
const stream = await client.chat.completions.create({ ...request, stream: true, stream_options: { include_usage: true } });
let [text, usage] = ["", null];
for await (const chunk of stream) { text += chunk.choices[0]?.delta?.content ?? ""; usage = chunk.usage ?? usage; }
const helped = await client.chat.completions.stream(request).finalContent();
const plain = await client.completions.create({ model: "NAME", prompt: "What is 2 + 3?", max_tokens: 4, logprobs: 1 });
const models = (await client.models.list()).data.map((each) => each.id);
let status = 0;
try { await client.chat.completions.create({ ...request, model: "other" }); } catch (error) { status = error.status; }
console.log(JSON.stringify({ whole, text, helped, usage, plain, models, status }));
"""


def test_openai_for_javascript(server, tmp_path):
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    (tmp_path / "package.json").write_text("{}")
    install = ["npm", "install", "--silent", "--no-audit", "--no-fund", "openai"]
    try:
        done = subprocess.run(install, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, timeout=WAIT)
    except subprocess.TimeoutExpired:
        pytest.skip("npm does not answer")
    if done.returncode:
        pytest.skip("npm cannot fetch the package 'openai'")
    (tmp_path / "talk.mjs").write_text(SCRIPT.replace("NAME", NAME).replace("QUESTION", QUESTION))
    found = json.loads(run(["node", str(tmp_path / "talk.mjs"), server.url]))
    message = found["whole"]["choices"][0]["message"]["content"]
    assert found["text"] == found["helped"] == message and "boxed" in message
    first = found["whole"]["choices"][0]["logprobs"]["content"][0]
    assert 0 < first["temperature"] < 2 and 0 < first["top_p"] < 1
    assert found["usage"] == found["whole"]["usage"] or found["usage"]["total_tokens"] > 0
    assert found["models"] == [NAME] and found["status"] == 404 and found["plain"]["choices"][0]["text"]


def test_llm(server, tmp_path):
    needs("llm")
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: autodeco\n  model_name: {NAME}\n  api_base: {server.url}/v1\n  supports_schema: true\n"
    )
    llm = [sys.executable, "-m", "llm", "-m", "autodeco"]
    home = {"LLM_USER_PATH": str(tmp_path)}
    streamed = run([*llm, "-o", "seed", "1", QUESTION], **home)
    assert "boxed" in streamed and streamed == run([*llm, "-o", "seed", "1", "--no-stream", QUESTION], **home)
    assert set(json.loads(run([*llm, "--schema", "a int, b int", QUESTION], **home))) == {"a", "b"}
    assert run([*llm, "-c", "And 41?"], **home)


def test_langchain(server):
    needs("langchain_openai")
    from langchain_openai import ChatOpenAI
    from pydantic import BaseModel

    class Pair(BaseModel):
        a: int
        b: int

    model = ChatOpenAI(base_url=f"{server.url}/v1", api_key="none", model=NAME, seed=1)
    whole = model.invoke(QUESTION)
    assert "boxed" in whole.content and whole.usage_metadata["output_tokens"] > 0
    assert "".join(chunk.content for chunk in model.stream(QUESTION)) == whole.content
    entry = model.bind(logprobs=True).invoke(QUESTION).response_metadata["logprobs"]["content"][0]
    assert 0 < entry["temperature"] < 2
    assert isinstance(model.with_structured_output(Pair).invoke(QUESTION), Pair)


TASK = """task: numbers
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/numbers.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "Find two numbers that make {{n}}."
doc_to_target: "{{n}}"
process_results: !function score.score
generation_kwargs: {max_gen_toks: 64, until: ["<end>"], do_sample: true, temperature: 1.0}
metric_list: [{metric: right, aggregation: mean, higher_is_better: true}]
"""
SCORE = """import re


def score(doc, results):
    numbers = re.findall(r"\\d+", results[0].rpartition("boxed")[2])
    return {"right": float(sum(map(int, numbers)) == doc["n"])}
"""


def harness(folder: Path, task: str, model: str, *arguments: str) -> dict:
    """Its results of one task file in the folder."""
    command = [sys.executable, "-m", "lm_eval", "run", "--model", model, "--model_args", *arguments]
    more = ["--include_path", str(folder), "--tasks", task, "--output_path", str(folder / "out")]
    run([*command, *more], 4 * WAIT, HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_HOME=str(folder / "cache"))
    (result,) = (folder / "out").rglob("results*.json")
    return json.loads(result.read_text())["results"][task]


@pytest.mark.parametrize("form", ["chat", "plain"])
def test_lm_evaluation_harness(server, tmp_path, form):
    """On a task file of our own; temperature 1 leaves the heads alone, where the harness would say 0."""
    needs("lm_eval")
    (tmp_path / "numbers.yaml").write_text(TASK.replace("FOLDER", str(tmp_path)))
    (tmp_path / "score.py").write_text(SCORE)
    (tmp_path / "numbers.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in (83, 41, 62, 57)))
    base = f"model={NAME},base_url={server.url}"
    how = {
        "chat": ["local-chat-completions", f"{base}{CHAT},num_concurrent=2", "--apply_chat_template"],
        "plain": ["local-completions", f"{base}/v1/completions,tokenizer_backend=None,tokenized_requests=False"],
    }[form]
    right = harness(tmp_path, "numbers", *how)["right,none"]
    assert right >= 0.5 if form == "chat" else 0 <= right <= 1


CHOICE = """task: choice
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/numbers.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "<|im_start|>user\\nFind two numbers that make {{n}}.<|im_end|>\\n<|im_start|>assistant\\n"
doc_to_choice: ["I choose 10.", "zq zq zq zq"]
doc_to_target: 0
target_delimiter: ""
metric_list: [{metric: acc}]
"""


def test_lm_evaluation_harness_weighs_answers(server, tmp_path):
    """By echo with logprobs, on token ids of the model's own tokenizer."""
    needs("lm_eval")
    needs("transformers")
    from transformers import AutoTokenizer

    model = demo_model()
    AutoTokenizer.from_pretrained(model.parent, gguf_file=model.name).save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "choice.yaml").write_text(CHOICE.replace("FOLDER", str(tmp_path)))
    (tmp_path / "numbers.jsonl").write_text('{"n": 83}\n{"n": 41}\n')
    base = f"model={NAME},base_url={server.url}/v1/completions,max_length=1024"
    how = f"{base},tokenizer_backend=huggingface,tokenizer={tmp_path / 'tokenizer'}"
    found = harness(tmp_path, "choice", "local-completions", how)
    assert found["acc,none"] == 1


def test_open_webui():
    """Its calls: models, a streamed chat with the parameters that its form has, a title asked for aside."""
    with serving("--api-key", "sk-local") as served:
        headers = {
            "Authorization": "Bearer sk-local", "X-OpenWebUI-User-Name": "A", "X-OpenWebUI-User-Role": "admin",
        }  # fmt: skip
        models = httpx.get(f"{served.url}/v1/models", headers=headers).json()["data"]
        chat = {
            "model": models[0]["id"],
            "messages": [{"role": "system", "content": "Be brief."}, *ask()["messages"]],
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 1.0, "top_p": 1.0, "min_p": 0.0, "max_tokens": 64, "frequency_penalty": 0.0,
            "presence_penalty": 0.0, "seed": 3, "stop": ["\n\n"], "logit_bias": {"5": -100},
        }  # fmt: skip
        with httpx.stream("POST", served.url + CHAT, json=chat, headers=headers, timeout=WAIT) as answer:
            assert answer.status_code == 200, answer.read()
            events = [line for line in answer.iter_lines() if line]
        assert events[-1] == "data: [DONE]" and json.loads(events[-2][6:])["usage"]["total_tokens"] > 0
        title = {"model": models[0]["id"], **ask("Make a title."), "stream": False, "max_completion_tokens": 20}
        answer = served.post(CHAT, title, headers=headers).json()
        assert answer["choices"][0]["message"]["content"]
        assert httpx.get(f"{served.url}/v1/models", headers={"Authorization": "Bearer none"}).status_code == 401


def test_the_document_names_them():
    page = (Path(__file__).resolve().parents[2] / "docs" / "server.md").read_text(encoding="utf-8")
    for name in ("LangChain", "Open WebUI", "lm_eval", "extra-openai-models.yaml", "nginx"):
        assert name in page, name
