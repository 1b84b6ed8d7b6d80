"""Classifiers of architectures of which transformers has none."""

import pytest
import torch
from architectures import config, draw
from model_table import TABLE
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, CohereConfig, T5Config

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models.classifiers import register
from rlhf_lib.scoring.classifier import load_classifier

KNOWN = AutoModelForSequenceClassification._model_mapping


@pytest.mark.parametrize("kind", ["falcon_h1", "gemma3n_text", "granite", "mamba"])
def test_a_score_is_one_linear_layer_on_the_last_token(kind, tmp_path):
    register(config(kind))
    policy = draw(kind)
    policy.save_pretrained(tmp_path)
    model, info = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=1, output_loading_info=True)
    assert type(model).__name__ == type(policy).__name__.replace("CausalLM", "SequenceClassification")
    assert set(info["missing_keys"]) == {"score.weight"}
    ids, mask = torch.tensor([[5, 6, 7, 8, 9], [11, 12, 13, 0, 0]]), torch.tensor([[1] * 5, [1, 1, 1, 0, 0]])
    with torch.no_grad():
        scores = model.eval()(input_ids=ids, attention_mask=mask).logits
        rows = [policy.base_model(row[None]).last_hidden_state[0, -1] for row in (ids[0], ids[1, :3])]
        expected = torch.stack(rows) @ model.score.weight.T
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-4)
    model.save_pretrained(tmp_path / "again")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "again").eval()
    with torch.no_grad():
        torch.testing.assert_close(again(input_ids=ids, attention_mask=mask).logits, scores)


def test_what_transformers_has_stays_its_own():
    for kind in TABLE:
        register(config(kind))
    assert KNOWN[type(config("llama"))].__module__ == "transformers.models.llama.modeling_llama"
    assert KNOWN[type(config("granite"))].__mro__[1].__module__ == "rlhf_lib.models.classifiers"
    of_t5 = KNOWN[T5Config]
    register(T5Config())
    assert KNOWN[T5Config] is of_t5


def test_the_first_of_a_kind_is_measured_before_it_is_read(tmp_path, tokenizer):
    """Far fewer weights than config.json asks for: the rest would be drawn at random."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 1}
    small = CohereConfig(vocab_size=len(tokenizer), tie_word_embeddings=True, **sizes)
    assert CohereConfig not in KNOWN
    AutoModelForCausalLM.from_config(small).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    small.num_hidden_layers = 40
    small.save_pretrained(tmp_path)
    with pytest.raises(ParamsError, match="its config.json asks for"):
        load_classifier(str(tmp_path), None)
