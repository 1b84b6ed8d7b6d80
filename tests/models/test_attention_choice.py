"""Which attention a model is loaded with: what the machine likes, the architecture has, or the params name."""

import pytest
import torch
from architectures import draw, make
from model_table import TABLE
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForSequenceClassification

from rlhf_lib.base import model as base
from rlhf_lib.base.params import BaseParams
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models import hardware
from rlhf_lib.models import loading as models
from rlhf_lib.models.forward import Steps
from rlhf_lib.models.logprobs import Response, collate, response_logits
from rlhf_lib.scoring.reward_model import RewardModel

# none of it, or (Gemma 2) none that caps the scores
WITHOUT_SDPA = {"gpt_neo", "bloom", "mamba", "openai-gpt", "gemma2", "gpt_oss"}


@pytest.fixture
def like_a_gpu(monkeypatch):
    """Where only the choice is looked at: nothing here moves a model to a device."""
    monkeypatch.setattr(hardware, "device", lambda: torch.device("cuda", 0))


@pytest.fixture
def saved(tokenizer, tmp_path):
    """A function that gives the directory of an architecture's random model."""

    def saved(kind):
        models.save(draw(kind, len(tokenizer)), tokenizer, tmp_path / kind)
        return tmp_path / kind

    return saved


def params(path):
    sizes = {"seed": 0, "vocab_size": 320, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 2}
    return BaseParams(model_name_or_path=str(path), model_revision=None, **sizes)


@pytest.mark.usefixtures("like_a_gpu")
@pytest.mark.parametrize("kind", TABLE)
def test_stage_base_loads_every_architecture_where_there_is_a_gpu(saved, kind):
    """With PyTorch's fused attention, where it has that."""
    model, _ = base.pretrained(params(saved(kind)))
    assert model.config._attn_implementation == ("eager" if kind in WITHOUT_SDPA else "sdpa")


@pytest.mark.parametrize("kind", ["gpt_neo", "llama"])
def test_on_a_cpu_attention_is_plain_matrix_products(saved, kind):
    model, _ = base.pretrained(params(saved(kind)))
    assert model.config._attn_implementation == "eager"


def test_a_named_attention_that_the_architecture_has_not_is_told_in_one_line(compute, saved):
    folder = saved("gpt_neo")
    compute(attn_implementation="sdpa")
    with pytest.raises(ParamsError) as error:
        models.load_policy(folder)
    told = str(error.value)
    assert told.startswith("params.yaml: compute.attn_implementation: sdpa: GPTNeoForCausalLM does not support")
    assert told.endswith("; set it to auto") and "\n" not in told
    compute(attn_implementation="auto")
    models.load_policy(folder)  # the way out


def test_a_named_attention_whose_package_is_missing_is_told_in_one_line(compute, saved, monkeypatch):
    folder = saved("llama")
    monkeypatch.setattr(hardware, "attn_implementation", lambda: "flash_attention_2")
    for load in (models.load_policy, lambda path: models.fetch_causal(str(path), None)):
        with pytest.raises(ParamsError) as error, models.explaining("fault", str(folder), None, "", ""):
            load(folder)
        told = str(error.value)
        assert told.startswith("params.yaml: compute.attn_implementation: flash_attention_2: ")
        assert told.endswith("; set it to auto") and "\n" not in told


def test_a_reward_model_keeps_its_own_attention_where_sdpa_is_named(compute, saved, tokenizer, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(saved("gpt_neo"), num_labels=1)
    models.save(model, tokenizer, tmp_path / "reward")
    compute(attn_implementation="sdpa")
    assert RewardModel.load(tmp_path / "reward").model.config._attn_implementation == "eager"


def test_one_core_computes_narrow_models_and_all_compute_where_there_is_a_wide_one(compute):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    hardware._cores.cache_clear()
    try:
        compute()
        found = []
        for hidden_size in (96, 128, 129, 96):
            hardware.share_out(hidden_size)
            found.append(torch.get_num_threads())
        assert found == [1, 1, 3, 3]
    finally:
        torch.set_num_threads(before)
        hardware._cores.cache_clear()


def test_other_faults_of_loading_are_not_taken_for_attention():
    assert models.attention_fault(ValueError("no such file"), "sdpa") is None
    assert models.attention_fault(ValueError("it does not support this attention"), None) is None


@pytest.fixture
def onednn_multiplies():
    """As `hardware.use` lets it on CPUs with AVX-512 that are not Intel's."""
    products = torch.backends.mkldnn.matmul
    before, products.fp32_precision = products.fp32_precision, "bf16"
    yield products
    products.fp32_precision = before


def test_attention_s_products_are_not_onednn_s_and_all_others_are(onednn_multiplies):
    """Packed and decoded; forwards and backwards. oneDNN would copy the keys so far at every token."""
    seen = {"bmm": set(), "addmm": set()}

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.overloadpacket.__name__ in seen:
                seen[func.overloadpacket.__name__].add(onednn_multiplies.fp32_precision)
            return func(*args, **(kwargs or {}))

    _, model = make("gpt2")
    batch = collate(model, [[3, 4, 5], [6, 7]], [Response([8, 9], True), Response([9], True)], pad_id=0)
    with Watch():
        response_logits(model, batch).sum().backward()
        with torch.no_grad():
            steps = Steps(model, 4)
            steps(torch.tensor([[3, 4, 5]]), torch.ones(1, 3, dtype=torch.long), torch.arange(3)[None])
            steps(torch.tensor([[6]]), torch.ones(1, 4, dtype=torch.long), torch.tensor([[3]]))
    assert seen == {"bmm": {"ieee"}, "addmm": {"bf16"}} and onednn_multiplies.fp32_precision == "bf16"
