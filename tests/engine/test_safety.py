"""No call on Model, Heads, Sampler, Llama or Engine ends the process.

Every script of abuse runs in a process of its own, forked from one that has imported the package and opened
nothing, and ends by itself, as a program does: exit status 0, or the script says why.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

from tests.support.letters import make_letters

PRELUDE = """
import copy, ctypes, gc, os, pickle, sys, threading, time
import numpy as np
import llama_cpp
from autodeco_edge import Engine, Heads, Llama, Model, SamplingParams
from autodeco_edge.engine.sampler import Sampler
from autodeco_edge.errors import AutodecoError, BusyError, UsageError

MODEL, HEADS = sys.argv[1:3]
OPTIONS = dict(n_ctx=128, n_threads=1, n_threads_batch=1, verbose=False)

def llama(**options):
    return Llama(MODEL, **{"heads": HEADS, **OPTIONS, **options})

def engine():
    return Engine(MODEL, HEADS, n_ctx=128, n_threads=1)

def refused(call, *kinds):
    try:
        call()
    except (kinds or (AutodecoError,)):
        return
    raise SystemExit(f"not refused by {kinds or 'an AutodecoError'}")

def in_thread(call, daemon=False):
    caught = []
    def work():
        try:
            call()
        except BaseException as error:
            caught.append(error)
    thread = threading.Thread(target=work, daemon=daemon)
    thread.start()
    return thread, caught

def in_child(call):
    "The status of a forked child that runs call and ends as programs do; in the child this does not return."
    pid = os.fork()
    if pid == 0:
        call()
        raise SystemExit(0)
    assert os.waitpid(pid, 0)[1] == 0
"""

BAD_IDS = "(-1, -2**31, -2**63, 260, 2**20, 2**31, 2**40, 1.0, float('nan'), True, None, 'a', b'a', np.int64(-5), np.float32(1), [1], object())"

SCRIPTS = {
    # ---- Model
    "model: token_bytes of bad ids": f"m = Model(MODEL)\nfor x in {BAD_IDS}: refused(lambda: m.token_bytes(x), UsageError)",
    "model: is_end of bad ids": f"m = Model(MODEL)\nfor x in {BAD_IDS}: refused(lambda: m.is_end(x), UsageError)",
    "model: detokenize bad ids": f"m = Model(MODEL)\nfor x in {BAD_IDS}: refused(lambda: m.detokenize([1, x]), UsageError)",
    "model: token_text of bad ids": f"m = Model(MODEL)\nfor x in {BAD_IDS}:\n if x != -1: refused(lambda: m.token_text(x), UsageError)",
    "model: numpy ids are ids": "m = Model(MODEL); a = np.array([65, 66])\nassert m.detokenize(a) == m.detokenize([65, 66]) and m.token_text(-1) == ''",
    "model: detokenize no sequence": "m = Model(MODEL)\nfor x in (None, 5, 'ab', b'ab', 1.5): refused(lambda: m.detokenize(x), UsageError)",
    "model: tokenize no text": "m = Model(MODEL)\nfor x in (None, 5, 1.5, ['a'], object(), 'a\\ud800'): refused(lambda: m.tokenize(x), UsageError)",
    "model: tokenize odd bytes": "m = Model(MODEL)\nfor x in (b'', b'\\0', b'\\xff' * 999, b'a\\0b' * 999, bytearray(b'a'), memoryview(b'a'), bytes(range(256)) * 9): m.tokenize(x)",
    "model: metadata of bad keys": "m = Model(MODEL)\nfor x in (None, 5, b'a', '\\ud800'): refused(lambda: m.metadata(x), UsageError)\nassert m.metadata('no') is m.metadata('') is None and m.metadata('a' * 10**6) is None",
    "model: use after close": "m = Model(MODEL); m.close(); m.close()\nfor f in (lambda: m.tokenize('a'), lambda: m.token_bytes(1), lambda: m.is_end(1), lambda: m.bos, lambda: m.eos, lambda: m.metadata('a'), lambda: m.description, lambda: m.chat_template, lambda: m.handle, lambda: m.vocab, lambda: m.detokenize([1]), lambda: m.token_text(1), lambda: Engine(m, HEADS)): refused(f, UsageError)",
    "model: use after __del__": "m = Model(MODEL); m.__del__(); m.__del__(); refused(lambda: m.tokenize('a'), UsageError)",
    "model: copies": "m = Model(MODEL)\nfor f in (copy.copy, copy.deepcopy, pickle.dumps): refused(lambda: f(m), UsageError)",
    "model: closed in a with block": "with Model(MODEL) as m: m.tokenize('a')\nrefused(lambda: m.tokenize('a'), UsageError)",
    "model: made without a constructor": "m = Model.__new__(Model); m.close(); del m; h = Heads.__new__(Heads); del h; s = Sampler.__new__(Sampler); s.close(); del s; l = Llama.__new__(Llama); l.close(); del l; gc.collect()",
    "model: constructor again": "m = Model(MODEL); m.__init__(MODEL); m.tokenize('a')",
    "model: bad paths": "for x in ('', '/', '/dev/null', 'a\\0b', 'no'): refused(lambda: Model(x), AutodecoError, ValueError)",
    "model: attributes cannot be replaced": "m = Model(MODEL)\nfor n in ('handle', 'vocab', 'n_vocab'): refused(lambda: setattr(m, n, 1), AttributeError)",
    "model: in a child": "m = Model(MODEL)\nin_child(lambda: [refused(lambda: m.tokenize('a'), BusyError), m.close(), Model(MODEL).tokenize('ab' * 999)])\nm.tokenize('a')",
    "model: eight threads": "m = Model(MODEL); t = [in_thread(lambda: [m.tokenize('ab' * 400) for _ in range(30)]) for _ in range(8)]\n[x.join() for x, _ in t]; assert not any(c for _, c in t)",
    "model: closed under threads": "m = Model(MODEL); t = [in_thread(lambda: [m.detokenize(m.tokenize('ab' * 9)) for _ in range(2000)]) for _ in range(4)]\ntime.sleep(.02); m.close(); [x.join() for x, _ in t]; assert all(isinstance(e, UsageError) for _, c in t for e in c)",
    "model: in a cycle": "m = Model(MODEL); m.me = m; e = Engine(m, HEADS, n_ctx=64, n_threads=1); m.e = e; list(e.generate([65], max_tokens=2)); del m, e; gc.collect()",
    # ---- the tokenizer's stack and time
    "text: a long run in the main thread": "m = Model(MODEL)\nassert m.detokenize(m.tokenize('A' * 90_000)) == b'A' * 90_000",
    "text: a long run in a thread of 128 KiB": "m = Model(MODEL); threading.stack_size(131072)\nt, c = in_thread(lambda: m.tokenize('A' * 30_000)); t.join(); assert not c, c\nassert threading.stack_size() == 131072",
    "text: a run beyond the bound": "m = Model(MODEL)\nfor x in ('A', ' ', '漢', '\\n', '7', '\\u3000'): refused(lambda: m.tokenize(x * 100_001), UsageError)\nm.tokenize('A' * 60_000 + ' ' + 'A' * 60_000)",
    # ---- Heads
    "heads: arrays of a wrong shape": "h = Heads(HEADS); n = h.n_embd; ok = np.zeros(n, np.float32), np.zeros(260, np.float32); p = SamplingParams()\nh.step(np.zeros(n, np.float32), np.zeros(h.n_vocab or 260, np.float32), p)\nfor x in (np.zeros(n - 1, np.float32), np.zeros(n + 1, np.float32), np.zeros((1, n), np.float32), np.zeros(n), np.zeros(n, np.int32), np.zeros(2 * n, np.float32)[::2], np.zeros(0, np.float32), np.float32(1), [0.0] * n, None, 'a', b'a' * 4 * n): refused(lambda: h.step(x, np.zeros(h.n_vocab or 260, np.float32), p), UsageError)",
    "heads: logits of a wrong shape": "h = Heads(HEADS); x = np.zeros(h.n_embd, np.float32); p = SamplingParams()\nfor y in (np.zeros(0, np.float32), np.zeros(260), np.zeros((2, 130), np.float32), np.zeros(520, np.float32)[::2], None, 5, 'a'): refused(lambda: h.step(x, y, p), UsageError)",
    "heads: bad indices": "h = Heads(HEADS); x = np.zeros(h.n_embd, np.float32); y = np.zeros(h.n_vocab or 260, np.float32)\nfor i in (-1, 2**64, 10**30): refused(lambda: h.step(x, y, SamplingParams(), i), UsageError)\nfor i in (1.5, 'a', None): refused(lambda: h.step(x, y, SamplingParams(), i), UsageError, TypeError, ctypes.ArgumentError)",
    "heads: values that are no numbers": "h = Heads(HEADS); x = np.full(h.n_embd, np.nan, np.float32); n = h.n_vocab or 260\nh.step(x, np.zeros(n, np.float32), SamplingParams())\nfor v in (np.nan, np.inf, -np.inf):\n  try: h.step(x, np.full(n, v, np.float32), SamplingParams())\n  except AutodecoError: pass",
    "heads: use after close": "h = Heads(HEADS); h.close(); h.__del__()\nfor n in ('n_embd', 'n_vocab', 'description', 'has_temp', 'mean_temperature', 'handle'): refused(lambda: getattr(h, n), UsageError)\nrefused(lambda: Sampler(h, SamplingParams()), UsageError); refused(lambda: Engine(MODEL, h), UsageError)",
    "heads: copies": "h = Heads(HEADS)\nfor f in (copy.copy, copy.deepcopy, pickle.dumps): refused(lambda: f(h), UsageError)",
    "heads: closed under a sampler": "h = Heads(HEADS); e = Engine(MODEL, h, n_ctx=64, n_threads=1); h.close(); del h; gc.collect()\nassert len(list(e.generate([65], SamplingParams(), max_tokens=5, stop_at_end=False))) == 5",
    "heads: no model": "h = Heads(HEADS)\nfor x in (None, 0): refused(lambda: h.check_model(x), UsageError)",
    "heads: in a child": "h = Heads(HEADS)\nin_child(lambda: [refused(lambda: h.n_embd, BusyError), h.close()])\nh.n_embd",
    # ---- Sampler
    "sampler: use after close": "s = Sampler(Heads(HEADS), SamplingParams()); s.close(); s.close(); s.__del__()\nfor f in (s.reset, s.check, lambda: s.position, lambda: s.n_fallbacks, lambda: s.set_params(SamplingParams()), lambda: s.chain, lambda: s.sample(1, 0), lambda: setattr(s, 'position', 1)): refused(f, UsageError)",
    "sampler: no context": "s = Sampler(Heads(HEADS), SamplingParams())\nfor x in (None, 0): refused(lambda: s.sample(x, 0), UsageError)",
    "sampler: bad positions": "s = Sampler(Heads(HEADS), SamplingParams())\nfor x in (-1, 2**64): refused(lambda: setattr(s, 'position', x), UsageError)\ns.position = 7; assert s.position == 7",
    "sampler: bad settings": "for k, v in dict(seed=-1, temperature=-1.0, top_p=1.5, min_p=float('nan'), heads_mode='x', temp_range=(2.0, 1.0)).items(): refused(lambda: SamplingParams(**{k: v}), UsageError)\nfor v in (1.5, 'a', None): refused(lambda: SamplingParams(seed=v), UsageError)",
    "sampler: copies": "s = Sampler(None, SamplingParams())\nfor f in (copy.copy, copy.deepcopy, pickle.dumps): refused(lambda: f(s), UsageError)",
    "sampler: a filter that fails": "def bad(chain): raise RuntimeError\nrefused(lambda: Sampler(Heads(HEADS), SamplingParams(), filters=(bad,)), RuntimeError); gc.collect()",
    # ---- Engine
    "engine: closed in another thread": "e = engine(); t, c = in_thread(lambda: [list(e.generate([65], max_tokens=100, stop_at_end=False)) for _ in range(50)])\ntime.sleep(.05); e.close(); t.join(); assert all(isinstance(x, AutodecoError) for x in c)",
    "engine: its model closed": "m = Model(MODEL); e = Engine(m, HEADS, n_ctx=64, n_threads=1); g = e.generate([65], max_tokens=9, stop_at_end=False); next(g); m.close(); del m; gc.collect()\ntry: list(g)\nexcept UsageError: pass\ne.close()",
    "engine: its sampler's heads and model, any order": "m = Model(MODEL); h = Heads(HEADS); e = Engine(m, h, n_ctx=64, n_threads=1); h.close(); m.close(); e.close(); e.close(); refused(lambda: list(e.generate([65])), UsageError)",
    "engine: copies": "e = engine()\nfor f in (copy.copy, copy.deepcopy, pickle.dumps): refused(lambda: f(e), AutodecoError)",
    "engine: bad ids": f"e = engine()\nfor x in {BAD_IDS}: refused(lambda: list(e.generate([x], max_tokens=1)), AutodecoError, TypeError, ValueError)",
    "engine: in a child": "e = engine(); list(e.generate([65], max_tokens=2))\nin_child(lambda: [refused(lambda: list(e.generate([65])), BusyError), e.close()])\nlist(e.generate([65], max_tokens=2))",
    # ---- Llama: ids, texts, lifetimes
    "llama: bad ids": f"a = llama()\nfor x in {BAD_IDS}: refused(lambda: a.eval([x]), UsageError); refused(lambda: a.detokenize([x]), UsageError); refused(lambda: a('', max_tokens=1) if x == [1] else next(a.generate([x])), UsageError, TypeError) if x != [1] else None",
    "llama: bad ids in a prompt": "a = llama()\nfor x in ([-1], [2**40], [300], [1.5], [None]): refused(lambda: a(x, max_tokens=1), UsageError, TypeError)\na('hi', max_tokens=1)",
    "llama: bad texts": "a = llama()\nfor x in (None, 5, 'a\\ud800'): refused(lambda: a.tokenize(x), UsageError)\nrefused(lambda: a.tokenize(b'A' * 100_001), UsageError); refused(lambda: a('A' * 100_001), UsageError); a.tokenize(b'A' * 60_000)",
    "llama: the tokenizer's own door": "a = llama(); t = a.tokenizer()\nrefused(lambda: t.tokenize(b'A' * 100_001), UsageError); refused(lambda: t.detokenize([2**40]), UsageError)\na.close(); refused(lambda: t.tokenize(b'a'), UsageError); refused(lambda: t.detokenize([1]), UsageError)",
    "llama: use after close": "a = llama(); a('x', max_tokens=1); a.close(); a.close(); a.__del__()\nfor f in (lambda: a('x'), lambda: a.tokenize(b'a'), lambda: a.detokenize([1]), lambda: a.eval([1]), lambda: a.sample(), a.reset, a.save_state, a.n_ctx, a.n_vocab, a.n_embd, a.token_eos, a.token_bos, a.token_nl, a.pooling_type, lambda: a.ctx, lambda: a.model, lambda: a.embed('x'), lambda: a.create_embedding('x'), lambda: next(a.generate([1])), lambda: list(a('x', stream=True)), lambda: a.create_chat_completion([{'role': 'user', 'content': 'x'}])): refused(f, UsageError)",
    "llama: sample first": "refused(lambda: llama().sample(), UsageError); refused(lambda: llama(heads=None).sample(), UsageError)",
    "llama: an empty eval": "a = llama(heads=None); a.eval([]); refused(a.sample, UsageError)",
    "llama: a prompt beyond the context": "a = llama()\nrefused(lambda: a('a' * 500), ValueError, AutodecoError); refused(lambda: list(a.generate([65] * 500)), RuntimeError, ValueError, AutodecoError); a('x', max_tokens=2)",
    "llama: more tokens than the context": "a = llama()\ntry: [None for _ in a.generate([65])]\nexcept (RuntimeError, ValueError): pass",
    "llama: embed without embedding": "refused(lambda: llama().embed('a'), RuntimeError)",
    "llama: embedding of nothing": "a = llama(heads=None, embedding=True); a.embed('abc'); a.embed(['abc', 'd'])\ntry: a.embed('')\nexcept Exception: pass",
    "llama: states": "a = llama(heads=None); a('abc', max_tokens=3, seed=1); s = a.save_state(); a.load_state(s); s.llama_state = s.llama_state[:50]; s.llama_state_size = 50\ntry: a.load_state(s)\nexcept Exception: pass",
    "llama: vocab_only": "a = llama(vocab_only=True); assert a.detokenize(a.tokenize(b'abc')) == b'abc'\nfor f in (lambda: a('x', max_tokens=1), lambda: a.eval([65]), lambda: next(a.generate([65]))): refused(f, UsageError)",
    "llama: a callback that calls the model": "a = llama(); said = []\ndef p(ids, scores):\n  for f in (lambda: a('x', max_tokens=1), lambda: a.eval([65]), lambda: a.reset()):\n    try: f()\n    except BusyError: said.append(1)\n  return scores\na('x', max_tokens=1, logits_processor=[p]); assert len(said) == 3, said",
    "llama: a callback that closes the model": "a = llama()\ndef p(ids, scores): a.close(); return scores\nrefused(lambda: a('x', max_tokens=3, logits_processor=[p]), UsageError); refused(lambda: a('x'), UsageError)",
    "llama: a stock callback that calls the model": "a = llama(heads=None); said = []\ndef p(ids, scores):\n  try: a.eval([65])\n  except BusyError: said.append(1)\n  return scores\na('x', max_tokens=1, logits_processor=llama_cpp.LogitsProcessorList([p])); assert said == [1]",
    "llama: a stopping rule that calls the model": "a = llama()\ndef s(ids, scores): a('y', max_tokens=1); return False\nrefused(lambda: a('x', max_tokens=3, stopping_criteria=llama_cpp.StoppingCriteriaList([s])), BusyError); a('x', max_tokens=2)",
    "llama: options that llama.cpp aborts on": "for k in (dict(n_batch=-1), dict(type_k=999), dict(type_v=-1), dict(lora_path='no'), dict(lora_path=MODEL), dict(lora_path='/etc/passwd')): refused(lambda: llama(**k))",
    "llama: odd options": "for k in (dict(n_ctx=-1), dict(n_ctx=1), dict(n_batch=0), dict(n_ubatch=0), dict(n_threads=-1), dict(rope_scaling_type=99), dict(pooling_type=99), dict(last_n_tokens_size=-1), dict(main_gpu=9), dict(split_mode=9), dict(chat_format='no'), dict(kv_overrides={'a': 1}), dict(n_ctx=2**33), dict(heads_mode='x'), dict(tensor_split=[1.0])):\n  try: llama(**k)('x', max_tokens=2)\n  except Exception: pass",
    # ---- Llama: threads and streams
    "llama: two threads": "a = llama(); ok = []\ndef work():\n  for i in range(40):\n    try: a('x', max_tokens=20, seed=i); ok.append(1)\n    except BusyError: pass\nt = [in_thread(work) for _ in range(4)]; [x.join() for x, _ in t]; assert not any(c for _, c in t), t; assert ok",
    "llama: two threads without heads": "a = llama(heads=None)\ndef work():\n  for i in range(20):\n    try: a('x', max_tokens=20, seed=i)\n    except BusyError: pass\nt = [in_thread(work) for _ in range(4)]; [x.join() for x, _ in t]; assert not any(c for _, c in t), t",
    "llama: two threads, raw calls": "a = llama(heads=None)\ndef work():\n  for i in range(60):\n    for f in (lambda: a.eval([65, 66]), a.sample, a.reset, a.save_state):\n      try: f()\n      except (BusyError, UsageError, RuntimeError, ValueError): pass\nt = [in_thread(work) for _ in range(4)]; [x.join() for x, _ in t]; assert not any(c for _, c in t), t",
    "llama: closed in another thread": "a = llama(); t, c = in_thread(lambda: [a('x', max_tokens=100) for _ in range(50)])\ntime.sleep(.05); a.close(); t.join(); assert all(isinstance(x, AutodecoError) for x in c), c",
    "llama: a stream closed in another thread": "a = llama(); t, c = in_thread(lambda: [list(a('x', max_tokens=100, stream=True)) for _ in range(50)])\ntime.sleep(.05); a.close(); t.join(); assert all(isinstance(x, AutodecoError) for x in c), c",
    "llama: a stream left half way, then a call": "a = llama(); s = a.generate([65]); next(s); n = len(a('x', max_tokens=5, seed=1)['choices'][0]['text']); refused(lambda: next(s), BusyError); a('x', max_tokens=2)",
    "llama: a stream left half way, a call elsewhere": "a = llama(); s = a.generate([65]); next(s); t, c = in_thread(lambda: a('x', max_tokens=2)); t.join(); assert isinstance(c[0], BusyError); next(s); s.close(); t, c = in_thread(lambda: a('x', max_tokens=2)); t.join(); assert not c",
    "llama: a stream of a thread that is gone": "a = llama(); k = []; t, c = in_thread(lambda: k.append(a.generate([65])) or next(k[0])); t.join(); a('x', max_tokens=2)",
    "llama: a stream that outlives the model's name": "a = llama(); s = a('x', max_tokens=90, stream=True); next(s); del a; gc.collect(); list(s)",
    "llama: an error thrown into a stream": "a = llama(); s = a.generate([65]); next(s); refused(lambda: s.throw(KeyError('x')), KeyError); a('x', max_tokens=2)",
    "llama: in a child": "a = llama(); a('x', max_tokens=2)\nin_child(lambda: [refused(lambda: a('x'), BusyError), refused(lambda: a.tokenize(b'a'), BusyError), refused(a.n_ctx, BusyError), a.close(), llama()('x', max_tokens=2)])\na('x', max_tokens=2)",
    "llama: a stream in a child": "a = llama(); s = a.generate([65]); next(s)\nin_child(lambda: refused(lambda: next(s), BusyError))\nnext(s)",
    # ---- the end of the interpreter
    "end: a daemon thread in a generation of Llama": "a = llama(); in_thread(lambda: [a('x', max_tokens=100) for _ in range(10**6)], daemon=True); time.sleep(.05)",
    "end: a daemon thread in a stream": "a = llama(); in_thread(lambda: [list(a('x', max_tokens=100, stream=True)) for _ in range(10**6)], daemon=True); time.sleep(.05)",
    "end: a daemon thread in a generation of Engine": "e = engine(); in_thread(lambda: [list(e.generate([65], max_tokens=100)) for _ in range(10**6)], daemon=True); time.sleep(.05)",
    "end: a daemon thread in the tokenizer": "m = Model(MODEL); in_thread(lambda: [m.tokenize('A' * 50_000) for _ in range(10**6)], daemon=True); time.sleep(.05)",
    "end: a daemon thread that loads models": "in_thread(lambda: [Model(MODEL) for _ in range(10**6)], daemon=True); time.sleep(.05)",
    "end: everything alive": "m = Model(MODEL); h = Heads(HEADS); e = Engine(m, h, n_ctx=64, n_threads=1); a = llama(); s = a.generate([65]); next(s); g = e.generate([65]); next(g)",
    "end: everything in one cycle": "m = Model(MODEL); h = Heads(HEADS); e = Engine(m, h, n_ctx=64, n_threads=1); a = llama(); s = a.generate([65]); next(s); a('x', max_tokens=1) if 0 else None; c = [m, h, e, a, s]; c.append(c); m.c = h.c = e.c = a.c = c; del m, h, e, a, s, c; gc.collect()",
    "end: used in an atexit": "import atexit; a = llama(); m = Model(MODEL); atexit.register(lambda: [a('x', max_tokens=2), m.tokenize('ab' * 900)])",
    "end: an error that leaves a generation": "a = llama()\ndef run():\n  for _ in a.generate([65]): raise KeyError\nrefused(run, KeyError); a('x', max_tokens=2)",
    "end: sys.modules emptied": "a = llama(); e = engine(); s = a.generate([65]); next(s); sys.modules.clear()",
    # ---- copies of Llama: made anew, heads kept
    "llama: pickled": "a = llama(heads_mode='temp', seed=5); b = pickle.loads(pickle.dumps(a)); assert str(b.autodeco.path) == HEADS and b.heads_mode == 'temp'\nfor i in range(4): assert a('x', max_tokens=9, seed=i)['choices'] == b('x', max_tokens=9, seed=i)['choices'] and a.steps == b.steps or a.steps[0].top_p is None and len(a.steps) == len(b.steps)",
    "llama: copied": "a = llama(heads_mode='top-p')\nfor f in (copy.copy, copy.deepcopy):\n  b = f(a); assert str(b.autodeco.path) == HEADS and b.heads_mode == 'top-p' and b.native is not a.native; b('x', max_tokens=2); b.close(); a('x', max_tokens=2)",
    "llama: pickled without heads": "b = pickle.loads(pickle.dumps(llama(heads=None))); assert b.autodeco is None; b('x', max_tokens=2)",
    "llama: pickled after close": "a = llama(); a.close(); b = pickle.loads(pickle.dumps(a)); assert b.autodeco; b('x', max_tokens=2)",
    "llama: pickled, its heads gone": "import shutil; shutil.copy(HEADS, HEADS + '.2'); a = Llama(MODEL, heads=HEADS + '.2', **OPTIONS); d = pickle.dumps(a); os.remove(HEADS + '.2'); refused(lambda: pickle.loads(d))",
}  # fmt: skip

DRIVER = """
import os, signal, tempfile
results = {}
for name, script in SCRIPTS.items():
    errors = tempfile.TemporaryFile()
    pid = os.fork()
    if pid == 0:
        signal.alarm(50)  # less than the end of the interpreter waits for a call that does not return
        os.dup2(errors.fileno(), 2)
        exec(compile(script, name, "exec"), globals())
        break
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    errors.seek(0)
    results[name] = status, errors.read().decode("utf-8", "replace")[-2000:]
else:
    import json
    print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, tuple[int, str]]:
    letters = make_letters(tmp_path_factory.mktemp("letters"))
    program = f"{textwrap.dedent(PRELUDE)}\nSCRIPTS = {SCRIPTS!r}\n{DRIVER}"
    command = [sys.executable, "-c", program, str(letters.gguf), str(letters.heads)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_call_ends_the_process(outcomes, name):
    status, stderr = outcomes[name]
    assert status == 0, stderr
    assert "Exception ignored" not in stderr, stderr
