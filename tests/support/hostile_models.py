"""Model directories that are broken or hostile: what is done to a sound one, and what must then be said of it."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from model_changes import (
    AUTO_MAP,
    CODE,
    INDEX,
    WEIGHTS,
    a_folder,
    adapter,
    added,
    both,
    config,
    cut,
    edit,
    fifo,
    header,
    index,
    loop,
    more_tokens,
    outside,
    own_code,
    pickled,
    remove,
    tokenizer,
    torch_pickled,
    weight,
    write,
)


class Attack(NamedTuple):
    """change: makes a sound directory a hostile one. told: a pattern of the line that stage base ends with; None where
    it does its work all the same."""

    change: Callable[[Path], None]
    told: str | None


SHORT = r"model.safetensors in it is cut short or no safetensors; copy"
CONFIG = r"config.json"
ATTACKS: dict[str, Attack] = {
    "untouched": Attack(lambda folder: None, None),
    # ---- weights
    "weights: header's length cut": Attack(cut(WEIGHTS, 4), SHORT),
    "weights: header cut": Attack(cut(WEIGHTS, 100), SHORT),
    "weights: data cut": Attack(cut(WEIGHTS, 0.6), SHORT),
    "weights: last byte cut": Attack(cut(WEIGHTS, -1), SHORT),
    "weights: empty": Attack(cut(WEIGHTS, 0), SHORT),
    "weights: header of 2^60 bytes": Attack(write(WEIGHTS, struct.pack("<Q", 1 << 60) + b"{}"), SHORT),
    "weights: header nested deeply": Attack(
        write(WEIGHTS, struct.pack("<Q", 200_000) + b'{"a":' + b"[" * 199_995), SHORT
    ),
    "weights: a tensor of 10^18 numbers": Attack(header(lambda entry: entry.update(shape=[10**9, 10**9])), SHORT),
    "weights: a tensor of overflowing size": Attack(header(lambda entry: entry.update(shape=[2**62, 2**62])), SHORT),
    "weights: offsets that overlap": Attack(header(lambda entry: entry.update(data_offsets=[0, 8])), SHORT),
    "weights: offsets behind the end": Attack(header(lambda entry: entry.update(data_offsets=[10**12, 10**13])), SHORT),
    "weights: an unknown dtype": Attack(header(lambda entry: entry.update(dtype="F99")), SHORT),
    "weights: another shape": Attack(header(lambda entry: entry.update(shape=entry["shape"][::-1])), r"has the shape"),
    "weights: garbage": Attack(write(WEIGHTS, bytes(range(256)) * 40), SHORT),
    "weights: a page of HTML": Attack(write(WEIGHTS, "<!DOCTYPE html><html>404</html>"), SHORT),
    "weights: a pointer of Git LFS": Attack(
        write(WEIGHTS, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"), SHORT
    ),
    "weights: a folder": Attack(a_folder(WEIGHTS), r"no weights in it"),
    "weights: a link to itself": Attack(loop(WEIGHTS), r"a link to nothing, or no regular file"),
    "weights: a pipe": Attack(fifo(WEIGHTS), r"a link to nothing, or no regular file"),
    "weights: NaN": Attack(weight(float("nan")), r"wte.weight holds NaN or infinity"),
    "weights: infinity": Attack(weight(float("-inf")), r"wte.weight holds NaN or infinity"),
    "weights: so large that logits are not finite": Attack(weight(3e38), r"its logits are not finite"),
    # ---- the index of shards
    "index: a shard is missing": Attack(index("model-00002-of-00002.safetensors"), r"model-00002-of.*is missing; copy"),
    "index: outside of the folder": Attack(outside, r"../outside.safetensors, which .* names, lies outside of it"),
    "index: an absolute path": Attack(index("/etc/passwd"), r"/etc/passwd, which .* names, lies outside of it"),
    "index: numbers": Attack(index({"transformer.wte.weight": 3}), r"index.json"),
    "index: a list": Attack(index(["a"]), r"index.json in it is cut short"),
    "index: empty": Attack(index({}), r"index.json"),
    "index: cut": Attack(both(index("x"), cut(INDEX, 20)), r"index.json in it is cut short"),
    # ---- code
    "code: a pickle alone": Attack(both(remove(WEIGHTS), torch_pickled), r"pickles, which can run code"),
    "code: a pickle beside the weights": Attack(pickled("pytorch_model.bin"), None),
    "code: a pickle named safetensors": Attack(pickled(WEIGHTS), SHORT),
    "code: a pickle as training_args": Attack(pickled("training_args.bin"), None),
    "code: auto_map of a known architecture": Attack(both(own_code, config(auto_map=AUTO_MAP)), None),
    "code: auto_map of an unknown one": Attack(
        both(own_code, config(auto_map=AUTO_MAP, model_type="own")), r"needs code of its own .* never run"
    ),
    "code: auto_map of the tokenizer": Attack(
        both(own_code, edit("tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_own.Own", None]})), None
    ),
    "code: auto_map in another repository": Attack(config(auto_map={"AutoConfig": "own/er--conf.Own"}), None),
    "code: custom_generate": Attack(
        lambda folder: (folder / "custom_generate").mkdir() or write("custom_generate/generate.py", CODE)(folder), None
    ),
    # ---- config.json
    "config: empty": Attack(write("config.json", ""), CONFIG),
    "config: a list": Attack(write("config.json", "[]"), CONFIG),
    "config: null": Attack(write("config.json", "null"), CONFIG),
    "config: nested deeply": Attack(write("config.json", "[" * 100_000), CONFIG),
    "config: nested deeply within": Attack(config(extra=json.loads('{"a":' * 900 + "1" + "}" * 900)), r"recursion"),
    "config: 30 MB": Attack(config(extra=["x" * 100] * 300_000), None),
    "config: UTF-16": Attack(
        lambda f: write("config.json", (f / "config.json").read_text().encode("utf-16"))(f), CONFIG
    ),
    "config: a link to itself": Attack(loop("config.json"), CONFIG),
    "config: a pipe": Attack(fifo("config.json"), CONFIG),
    "config: model_type a list": Attack(config(model_type=["gpt2"]), CONFIG),
    "config: n_layer a word": Attack(config(n_layer="two"), r"n_layer"),
    "config: n_layer negative": Attack(config(n_layer=-1), r"config.json gives num_hidden_layers as -1"),
    "config: n_layer 10^9": Attack(config(n_layer=10**9), CONFIG),
    "config: n_embd 10^9": Attack(config(n_embd=10**9), r"config.json gives hidden_size as 1000000000; copy"),
    "config: n_embd 0": Attack(config(n_embd=0), CONFIG),
    "config: n_head does not divide": Attack(config(n_head=3), r"must be divisible by num_heads"),
    "config: another n_embd": Attack(config(n_embd=16), r"has the shape .* in its weights and"),
    "config: vocab_size less": Attack(config(vocab_size=100), r"has the shape .* in its weights and"),
    "config: vocab_size 10^12": Attack(config(vocab_size=10**12), CONFIG),
    "config: n_positions less": Attack(config(n_positions=20), r"has the shape|attends to"),
    "config: an unknown activation": Attack(config(activation_function="frob"), r"'frob' \(KeyError\); give a"),
    "config: an unknown dtype": Attack(config(dtype="float99"), r"float99"),
    "config: epsilon NaN": Attack(config(layer_norm_epsilon=float("nan")), r"its logits are not finite"),
    "config: a kernel of the hub as attention": Attack(
        config(_attn_implementation="evil/kernel:run"), r"code of the hub as its attention, which is never run"
    ),
    "config: unknown quantization": Attack(config(quantization_config={"quant_method": "frob"}), None),
    "config: quantization a number": Attack(config(quantization_config=4), r"cannot be read .*; copy"),
    "config: EOS and pad beyond the embedding": Attack(config(eos_token_id=10**9, pad_token_id=-7), None),
    "config: another architecture": Attack(
        config(model_type="llama"), r"its config.json asks for \d[\d,]+ weights, and it has"
    ),
    "config: an encoder": Attack(config(model_type="bert"), r"its weights lack|its config.json asks"),
    # ---- tokenizer
    "tokenizer: cut": Attack(cut("tokenizer.json", 0.5), r"tokenizer.json in it is cut short"),
    "tokenizer: empty object": Attack(write("tokenizer.json", "{}"), r"tokenizer"),
    "tokenizer: a pipe": Attack(fifo("tokenizer.json"), r"tokenizer"),
    "tokenizer: another model's": Attack(tokenizer(more_tokens), r"another model's"),
    "tokenizer: an id far beyond": Attack(added(10**6), None),  # it gets the next one
    "tokenizer: negative ids": Attack(tokenizer(lambda t: t["model"]["vocab"].update(a=-1)), r"tokenizer"),
    "tokenizer: all words one id": Attack(
        tokenizer(lambda t: t["model"].update(vocab=dict.fromkeys(t["model"]["vocab"], 7))), r"tokenizer"
    ),
    "tokenizer: no words": Attack(tokenizer(lambda t: t["model"].update(vocab={}, merges=[])), r"tokenizer"),
    "tokenizer: an unknown kind": Attack(tokenizer(lambda t: t["model"].update(type="Frob")), r"tokenizer"),
    "tokenizer: merges of unknown words": Attack(
        tokenizer(lambda t: t["model"].update(merges=[["frob", "nicate"]])), r"tokenizer"
    ),
    "tokenizer: a broken expression": Attack(
        tokenizer(lambda t: t.update(normalizer={"type": "Replace", "pattern": {"Regex": "("}, "content": ""})),
        r"tokenizer",
    ),
    "tokenizer: config a list": Attack(write("tokenizer_config.json", "[]"), r"tokenizer_config.json"),
    "tokenizer: an unknown class": Attack(edit("tokenizer_config.json", tokenizer_class="FrobTokenizer"), None),
    "tokenizer: model_max_length a word": Attack(
        edit("tokenizer_config.json", model_max_length="long"), r"cannot load './model'"
    ),
    "tokenizer: EOS a number": Attack(edit("tokenizer_config.json", eos_token=5), r"tokenizer"),
    "tokenizer: special tokens nonsense": Attack(
        edit("tokenizer_config.json", extra_special_tokens={"a": 5}, added_tokens_decoder={"x": []}), r"tokenizer"
    ),
    "tokenizer: the template a number": Attack(
        edit("tokenizer_config.json", chat_template=5), r"tokenizer cannot be read"
    ),
    "tokenizer: the template not UTF-8": Attack(
        write("chat_template.jinja", b"\xff\xfe\x00"), r"tokenizer cannot be read"
    ),
    "tokenizer: the template a folder": Attack(a_folder("chat_template.jinja"), None),
    # ---- generation_config.json and adapters
    "generation: a list": Attack(write("generation_config.json", "[]"), r"generation_config.json"),
    "generation: cut": Attack(cut("generation_config.json", 0.5), r"generation_config.json"),
    "generation: nonsense": Attack(
        edit("generation_config.json", temperature=-3, top_p="x", num_beams=-1, max_length="y"), None
    ),
    "generation: EOS beyond the embedding": Attack(edit("generation_config.json", eos_token_id=[10**9, -3]), None),
    "generation: EOS a word": Attack(edit("generation_config.json", eos_token_id="<|end|>"), None),
    "adapter: without its base": Attack(both(adapter("./none"), remove("config.json")), r"adapters without the model"),
    "adapter: beside a whole model": Attack(adapter("./none"), r"adapter_config.json in it, of adapters to another"),
    "adapter: of a model of the hub": Attack(adapter("evil/model"), r"adapter"),
    "adapter: config nonsense": Attack(write("adapter_config.json", "[1]"), r"adapter"),
}
