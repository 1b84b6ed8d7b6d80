"""A fresh encoder for the reward model to start from: a small DistilBERT with a WordPiece tokenizer of its own.

dvc repro prepare
python -m examples.encoder_reward
dvc exp run -n encoder -S reward.model_name_or_path=models/encoder
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rlhf_lib.common import environment

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PAIRS = "data/splits/reward_train.jsonl"
SPECIAL = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "cls", "sep", "unk", "mask")}

Row = dict[str, Any]


def main() -> None:
    args = arguments()
    environment.prepare()
    from transformers import set_seed

    from rlhf_lib.common.rows import read_jsonl
    from rlhf_lib.models import loading as models

    tokenizer = word_piece(texts(read_jsonl(PAIRS)), args.vocab_size, args.context)
    set_seed(args.seed)
    model = encoder(tokenizer, args.width, args.layers)
    models.save(model, tokenizer, args.output)
    print(f"{args.output}: a DistilBERT of {model.num_parameters():,} parameters, untrained")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.encoder_reward",
        description="Make a small, untrained DistilBERT with a WordPiece tokenizer of its own.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--output", default="models/encoder", help="directory of model and tokenizer")
    parser.add_argument("--width", type=int, default=128, help="width of the encoder; a multiple of 4, its heads")
    parser.add_argument("--layers", type=int, default=2, help="layers of the encoder")
    parser.add_argument("--vocab-size", type=int, default=1000, help="most tokens of the tokenizer")
    parser.add_argument("--context", type=int, default=128, help="most tokens of prompt and answer together")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights")
    return parser.parse_args()


def texts(rows: Iterable[Row]) -> list[str]:
    """Every prompt and answer of the pairs."""
    return [message["content"] for row in rows for key in ("prompt", "chosen", "rejected") for message in row[key]]


def word_piece(texts: Sequence[str], vocab_size: int, context: int) -> PreTrainedTokenizerBase:
    """A WordPiece tokenizer that keeps case, and writes a pair as [CLS] prompt [SEP] answer [SEP]."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = list(SPECIAL.values())
    pieces = Tokenizer(models.WordPiece(unk_token=SPECIAL["unk_token"]))
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # Left to itself, the trainer numbers the characters inside words in another order every time.
    inside = [f"##{character}" for character in sorted({*"".join(texts)}) if not character.isspace()]
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=special + inside, show_progress=False)
    pieces.train_from_iterator(texts, trainer)
    tokenizer = Tokenizer(models.WordPiece(pieces.get_vocab(), unk_token=SPECIAL["unk_token"]))
    tokenizer.add_special_tokens(special)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=context,
        truncation_side="left",
        model_input_names=["input_ids", "attention_mask"],  # DistilBERT has no segments
        **SPECIAL,
    )


def encoder(tokenizer: PreTrainedTokenizerBase, width: int, layers: int) -> PreTrainedModel:
    """A random DistilBERT, to which stage reward gives a head."""
    from transformers import AutoModel, DistilBertConfig

    config = DistilBertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=tokenizer.model_max_length,
        dim=width,
        hidden_dim=2 * width,
        n_layers=layers,
        n_heads=4,
        pad_token_id=tokenizer.pad_token_id,
    )
    return AutoModel.from_config(config)


if __name__ == "__main__":
    main()
