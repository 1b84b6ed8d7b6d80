"""Samplers side by side for `python -m benchmarks.gpu rollouts`: ours, transformers' continuous batching, and vLLM."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.clock import Clock, free
from benchmarks.ppo.cases import CASES
from benchmarks.processes import CACHE
from rlhf_lib.common.hub import one_line


def sample(arguments: argparse.Namespace, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each generator's name and new tokens per second, for the same prompts and as many new tokens each. One that is
    not installed, or fails, is left out, but for ours."""
    from benchmarks.ppo import workload
    from rlhf_lib.generation.sampling import encode_prompts
    from rlhf_lib.models import loading as models

    case = dataclasses.replace(CASES["gpt2_bf16"], batch=arguments.rollout_batch, eos_probability=None)
    case = case.quick() if arguments.quick else case
    workload.write(case, folder, CACHE)
    tokenizer = models.load_tokenizer(folder / workload.POLICY)
    texts = workload.read_prompts(folder)[: case.batch]
    prompts = encode_prompts(tokenizer, texts, case.response_length, None, "response_length")
    for name, respond in {"ours": _ours, "continuous_batching": _continuous, "vllm": _vllm}.items():
        free()
        try:
            clock, tokens = respond(folder / workload.POLICY, tokenizer, prompts, case.response_length)
        except Exception as error:  # whatever another library raises
            if name == "ours":
                raise
            print(f"{name}: left out: {one_line(error)} ({type(error).__name__})")
            continue
        seconds = clock.now() - clock.start
        yield name, {"seconds": seconds, "tokens_per_second": tokens / seconds, "peak_mb": clock.peak_mb()}


def _ours(path: Path, tokenizer: Any, prompts: list[list[int]], length: int) -> tuple[Clock, int]:
    from rlhf_lib.generation.decoding import generate
    from rlhf_lib.generation.sampling import Sampling, random_numbers
    from rlhf_lib.models import hardware
    from rlhf_lib.models import loading as models

    policy, sampling = models.load_policy(path), Sampling(length, min_new_tokens=length - 1)
    noise = random_numbers(len(prompts), sampling, 0)
    with hardware.autocast():
        generate(policy, tokenizer, prompts[:1], sampling, noise[:1], 1)  # warm-up
        clock = Clock()
        responses = generate(policy, tokenizer, prompts, sampling, noise, len(prompts))
    return clock, sum(len(response.ids) for response in responses)


def _continuous(path: Path, tokenizer: Any, prompts: list[list[int]], length: int) -> tuple[Clock, int]:
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    from rlhf_lib.models import hardware
    from rlhf_lib.models.stops import stop_ids

    dtype = torch.bfloat16 if hardware.precision() == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="sdpa").to(hardware.device())
    options = {"max_new_tokens": length, "min_new_tokens": length - 1, "do_sample": True, "top_k": 0}
    config = GenerationConfig(**options, eos_token_id=list(stop_ids(model)), pad_token_id=tokenizer.pad_token_id)
    model.generate_batch(inputs=prompts[:1], generation_config=config)  # warm-up
    clock = Clock()
    outputs = model.generate_batch(inputs=prompts, generation_config=config)
    return clock, sum(len(output.generated_tokens) for output in outputs.values())


def _vllm(path: Path, tokenizer: Any, prompts: list[list[int]], length: int) -> tuple[Clock, int]:
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # the clock sees the memory of this process alone
    from vllm import LLM, SamplingParams

    engine = LLM(model=str(path), dtype="bfloat16", enforce_eager=False)
    params = SamplingParams(max_tokens=length, min_tokens=length - 1, temperature=1.0)
    inputs = [{"prompt_token_ids": ids} for ids in prompts]
    engine.generate(inputs[:1], params)  # warm-up
    clock = Clock()
    outputs = engine.generate(inputs, params)
    return clock, sum(len(output.outputs[0].token_ids) for output in outputs)
