"""What is proven of models before their rows lie end to end, and what of models is refused."""

import pytest
import torch
from architectures import config, draw, make
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from rlhf_lib.models import attention, proof
from rlhf_lib.models import loading as models
from rlhf_lib.models.attention import takes_packing
from rlhf_lib.models.forward import forward_takes
from rlhf_lib.models.logprobs import Response, collate, response_logits


def changed(kind, **changes):
    torch.manual_seed(0)
    of_kind = config(kind)
    of_kind.update(changes)
    return AutoModelForCausalLM.from_config(of_kind, attn_implementation="eager").eval()


def test_a_proof_is_a_difference_of_rounding():
    found = proof.prove_packing(draw("llama"))
    assert found.packs and found.reason is None and 0 < found.difference < 1e-5


def test_where_the_packing_is_lost_on_the_way_rows_are_padded():
    """Nemotron's layers do not hand on what they do not know."""
    model = draw("nemotron")
    assert proof.prove_packing(model) == (False, None, "where its rows end does not reach all its layers")
    models.run_fast(model)
    assert model.config._attn_implementation == "eager" and not takes_packing(model)


@torch.no_grad()
def test_attention_that_gets_no_packing_gives_nothing_that_could_be_taken_for_logits():
    prompts, responses = [[5, 6, 7], [8]], [Response([9, 3], True), Response([4, 5], True)]
    model = draw("nemotron")
    for implementation in (attention.IMPLEMENTATION, "sdpa"):
        model.set_attn_implementation(attention.IMPLEMENTATION)  # as nobody does who has not asked
        batch = collate(model, prompts, responses, pad_id=0)
        assert batch.inputs["input_ids"].size(0) == 1
        model.set_attn_implementation(implementation)
        assert response_logits(model, batch).isnan().all()


def test_positions_that_do_not_start_anew_with_each_row_are_found():
    model = draw("gpt2")
    embed = model.transformer.wpe.forward
    model.transformer.wpe.forward = lambda ids: embed(torch.arange(ids.size(1)).expand_as(ids))
    found = proof.prove_packing(model)
    assert not found.packs and found.difference > 0.01 and "rows end to end differ" in found.reason


def test_a_layer_that_looks_at_its_neighbours_is_found():
    """A convolution, say, of which the config tells nothing."""
    model = draw("llama")

    def mixed(module, inputs, output):
        return output + 0.05 * output.roll(1, dims=1)

    model.model.layers[0].mlp.register_forward_hook(mixed)
    found = proof.prove_packing(model)
    assert not found.packs and found.difference > 1e-3


@pytest.mark.parametrize("window", [4, 4096])
def test_a_window_that_attention_does_not_learn_of_is_found_in_rows_shorter_than_it(window):
    model = changed("gemma2", sliding_window=window)
    assert proof.prove_packing(model).packs
    model.model.layers[0].self_attn.sliding_window = None
    found = proof.prove_packing(model)
    assert not found.packs and found.reason == f"a layer's mask has a window of {window} tokens, its attention None"


@pytest.mark.parametrize("kind", ["lfm2", "llama4_text"])
def test_layers_that_are_no_attention_to_all_or_in_a_window_are_named(kind):
    told = {"lfm2": "layers of type conv", "llama4_text": "layers of type chunked_attention"}
    assert proof.prove_packing(draw(kind)).reason.startswith(told[kind])


@pytest.mark.parametrize("auto", [AutoModel, AutoModelForSequenceClassification], ids=["trunk", "classifier"])
def test_trunks_and_classifiers_are_proven_by_their_hidden_states(auto):
    torch.manual_seed(0)
    found = {}
    for kind in ("qwen2", "nemotron"):
        model = auto.from_config(config(kind), attn_implementation="eager")
        found[kind] = proof.prove_packing(model).packs
        models.run_fast(model)
        # a critic's trunk is asked by itself
        assert takes_packing(model) is takes_packing(model.base_model) is found[kind]
    assert found == {"qwen2": True, "nemotron": False}


@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_a_proof_leaves_the_model_and_the_random_numbers_as_they_were(mode):
    model = changed("gpt2", resid_pdrop=0.5, attn_pdrop=0.5).train(mode)
    model.transformer.h[0].requires_grad_(False)
    before, state = model.config.to_dict(), torch.get_rng_state()
    assert proof.prove_packing(model).packs  # dropout is off for it
    assert proof.unfit(model) is None and proof.takes_cache(model) and proof.takes_left_padding(model)
    assert model.training is mode and model.config.to_dict() == before
    assert model.config._attn_implementation == "eager"
    assert torch.get_rng_state().equal(state)
    assert [p.requires_grad for p in model.transformer.h[0].parameters()].count(True) == 0
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    "changes", [{"vocab_size": 4}, {"max_position_embeddings": 4}, {"pad_token_id": None}], ids=str
)
def test_small_vocabularies_and_short_contexts_are_no_obstacle(changes):
    model = changed("opt", **changes)
    assert proof.prove_packing(model).packs and proof.unfit(model) is None and proof.takes_cache(model)


def test_weights_of_16_bits_are_held_to_their_own_rounding():
    assert proof.prove_packing(draw("llama").to(torch.bfloat16)).packs
    assert not proof.prove_packing(draw("nemotron").to(torch.bfloat16)).packs


class RoundsByShape(nn.Linear):
    """As the products of 16 bits with which weights of few bits are multiplied: another shape, another rounding."""

    def forward(self, x):
        return super().forward(x) * (1 + 2**-9 * (x[..., 0].numel() % 5))


def test_weights_of_few_bits_are_held_to_the_rounding_of_16():
    models_of = {bits: draw("llama") for bits in ("many", "few")}
    for model in models_of.values():
        for module in model.model.modules():
            if type(module) is nn.Linear:
                module.__class__ = RoundsByShape
        assert model.dtype is torch.float32
    assert not proof.prove_packing(models_of["many"]).packs and not proof.takes_cache(models_of["many"])
    models_of["few"].is_quantized = True  # as transformers writes
    assert proof.prove_packing(models_of["few"]).packs and proof.takes_cache(models_of["few"])


def test_under_autocast_a_model_is_tried_in_full_precision():
    with torch.autocast("cpu", torch.bfloat16):
        assert proof.prove_packing(draw("llama")).difference < 1e-5
        assert proof.takes_cache(draw("gpt_neo")) and proof.takes_left_padding(draw("gpt_neo"))


def test_weights_that_are_elsewhere_are_not_tried():
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config("llama"))
    assert proof.prove_packing(model) == (False, None, "its weights are not all in this process")
    models.run_fast(model)
    assert not takes_packing(model)


def test_a_named_attention_is_kept(compute):
    compute(attn_implementation="eager")
    _, model = make("llama")
    assert model.config._attn_implementation == "eager" and not takes_packing(model)


# ---- Padding on the left, and caches


@pytest.mark.parametrize(("kind", "pads"), [("bloom", True), ("mamba", True), ("recurrent_gemma", False)])
def test_who_may_be_padded_on_the_left(kind, pads):
    assert proof.takes_left_padding(draw(kind)) is pads


def test_a_model_without_cache_is_named_once(capsys):
    model = draw("openai-gpt")
    assert not forward_takes(model, "past_key_values")
    assert [proof.takes_cache(model) for _ in range(3)] == [False] * 3
    assert capsys.readouterr().out.splitlines() == [
        "OpenAIGPTLMHeadModel decodes from no cache that is known here: each token costs a pass over its row"
    ]


# ---- What is refused

ENCODER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "vocab_size": 50,
    "initializer_range": 0.2,
}


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_an_encoder_with_a_language_models_head_is_refused_by_name(kind):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **ENCODER)).eval()
    assert proof.unfit(model) == (
        f"{type(model).__name__}: no causal language model: a token's logits change with the tokens that follow it"
    )


def test_a_forward_pass_that_fails_is_told_in_one_line():
    model = draw("llama")

    def fail(module, inputs):
        raise RuntimeError("sizes of tensors\nmust match")

    model.model.layers[0].register_forward_pre_hook(fail)
    told = "LlamaForCausalLM: its forward pass fails: RuntimeError: sizes of tensors must match"
    assert proof.unfit(model) == told
    assert proof.prove_packing(model).reason == "RuntimeError: sizes of tensors must match"


@pytest.mark.parametrize(
    ("tried", "found"),
    [
        (lambda model: proof.prove_packing(model).packs, True),
        (proof.unfit, None),
        (proof.takes_cache, True),
        (proof.takes_left_padding, True),
    ],
)
def test_want_of_memory_says_nothing_of_a_model(tried, found):
    """Else its rows would be padded, and decoded without a cache, where a GPU was full for a moment."""
    model = draw("gpt_neo" if tried is proof.takes_left_padding else "llama")

    def fail(module, inputs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    hook = model.base_model.register_forward_pre_hook(fail)
    with pytest.raises(torch.OutOfMemoryError):
        tried(model)
    hook.remove()
    assert tried(model) is found
