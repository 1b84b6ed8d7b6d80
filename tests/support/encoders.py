"""Random encoders and decoders with a WordPiece tokenizer."""

import torch
from tiny_models import TEXTS
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors, trainers
from tokenizers import models as tokenizer_models
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    GPT2Config,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from rlhf_lib.models import loading as models

CONTEXT = 24
SIZES = {
    "distilbert": DistilBertConfig(
        vocab_size=120, max_position_embeddings=CONTEXT, n_layers=2, n_heads=2, dim=16, hidden_dim=32, pad_token_id=0
    ),
    "bert": BertConfig(
        vocab_size=120,
        max_position_embeddings=CONTEXT,
        num_hidden_layers=2,
        num_attention_heads=2,
        hidden_size=16,
        intermediate_size=32,
        pad_token_id=0,
    ),
    # positions start behind the pad id, so that two more embeddings are needed
    "roberta": RobertaConfig(
        vocab_size=120,
        max_position_embeddings=CONTEXT + 1,
        num_hidden_layers=2,
        num_attention_heads=2,
        hidden_size=16,
        intermediate_size=32,
        pad_token_id=0,
        type_vocab_size=1,
    ),
    "gpt2": GPT2Config(vocab_size=120, n_positions=CONTEXT, n_layer=2, n_head=2, n_embd=16, pad_token_id=0),
}
ANSWERS = ["Cat.", "The sky is in one word, the dog.", "", "dog dog dog", "Paint", "cat", "A.", "Sky", "the dog"]


def user(text):
    return [{"role": "user", "content": text}]


PROMPTS = [user(text) for text in TEXTS]


def word_piece_tokenizer():
    """A WordPiece tokenizer that puts [CLS] and [SEP] around a pair, as BERT's does; it gives token_type_ids."""
    tokenizer = Tokenizer(tokenizer_models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=120, special_tokens=["[PAD]", "[CLS]", "[SEP]", "[UNK]"], show_progress=False
    )
    tokenizer.train_from_iterator([*TEXTS, *ANSWERS, "user: assistant: system:"], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    outputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=CONTEXT, model_input_names=outputs, **names
    )


def save_encoder(path, kind, num_labels=1):
    torch.manual_seed(0)
    config = SIZES[kind].__class__(**SIZES[kind].to_dict() | {"id2label": {i: str(i) for i in range(num_labels)}})
    model = AutoModelForSequenceClassification.from_config(config)
    for weight in model.parameters():  # sharper than at initialisation, so that scores differ visibly
        torch.nn.init.normal_(weight, std=0.5) if weight.dim() > 1 else None
    models.save(model, word_piece_tokenizer(), path)
    return path
