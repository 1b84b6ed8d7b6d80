"""A reward model with a tokenizer of its own: a small DistilBERT, from scratch, on the pairs of data/splits.

dvc repro prepare
python -m examples.encoder_reward
dvc exp run -n encoder -S 'ppo.reward_funcs=[rewards/encoder]'
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_lib import environment

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TRAIN, VALIDATION = (Path(f"data/splits/preference_{split}.jsonl") for split in ("train", "validation"))
CONTEXT = 128  # tokens, prompt and answer together; a longer prompt loses its beginning
SPECIAL = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "cls", "sep", "unk", "mask")}

Row = dict[str, Any]


def main() -> None:
    args = arguments()
    for file in (TRAIN, VALIDATION):
        if not file.is_file():
            raise SystemExit(f"{file}: no such file; run dvc repro prepare first, from the project's root")
    environment.prepare()
    from datasets import Dataset
    from transformers import set_seed
    from trl import RewardConfig, RewardTrainer

    from rlhf_lib import models, training
    from rlhf_lib.reward import reward_statistics
    from rlhf_lib.rewards import STATISTICS_FILE, RewardModel
    from rlhf_lib.rows import read_jsonl
    from rlhf_lib.tracking import write_json

    set_seed(args.seed)
    models.multiply_with_onednn()
    train, validation = read_jsonl(TRAIN), read_jsonl(VALIDATION)
    tokenizer = word_piece(texts(train), args.vocab_size)
    trainer = RewardTrainer(
        model=encoder(tokenizer, args.width, args.layers),
        args=RewardConfig(
            output_dir=args.output,
            num_train_epochs=args.epochs,
            learning_rate=args.learning_rate,
            per_device_train_batch_size=32,
            lr_scheduler_type="linear",
            warmup_steps=0.1,
            train_sampling_strategy="group_by_length",
            remove_unused_columns=False,  # length is one
            max_length=None,
            logging_steps=50,
            save_strategy="no",
            report_to="none",
            seed=args.seed,
            **training.device_kwargs(),
        ),
        # TRL renders messages with a chat template, which an encoder has not; ids it takes as they are.
        train_dataset=Dataset.from_list(encode(tokenizer, train)),
        processing_class=tokenizer,
    )
    trainer.train()

    # Scored as PPO will score: by text.
    reward = RewardModel(trainer.model, tokenizer)
    prompts = [row["prompt"] for row in validation]
    chosen, rejected = (
        reward.scores(prompts, [row[key][0]["content"] for row in validation]) for key in ("chosen", "rejected")
    )
    accuracy = sum(c > r for c, r in zip(chosen, rejected, strict=True)) / len(validation)
    models.save(trainer.model, tokenizer, args.output)
    write_json(Path(args.output) / STATISTICS_FILE, reward_statistics(reward.scores, validation))
    print(f"{args.output}: validation accuracy {accuracy:.3f} on {len(validation)} pairs")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.encoder_reward",
        description="Train a small DistilBERT with a WordPiece tokenizer of its own as a reward model for PPO.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--output", default="rewards/encoder", help="directory of model, tokenizer and statistics")
    parser.add_argument("--epochs", type=float, default=2.0, help="passes over the pairs")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="peak learning rate of AdamW")
    parser.add_argument("--width", type=int, default=128, help="width of the encoder; a multiple of 4, its heads")
    parser.add_argument("--layers", type=int, default=2, help="layers of the encoder")
    parser.add_argument("--vocab-size", type=int, default=1000, help="most tokens of the tokenizer")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and of the order of the pairs")
    return parser.parse_args()


def texts(rows: Iterable[Row]) -> list[str]:
    """Every prompt and answer of the pairs."""
    return [message["content"] for row in rows for key in ("prompt", "chosen", "rejected") for message in row[key]]


def word_piece(texts: Sequence[str], vocab_size: int) -> PreTrainedTokenizerBase:
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
        model_max_length=CONTEXT,
        truncation_side="left",
        model_input_names=["input_ids", "attention_mask"],  # DistilBERT has no segments
        **SPECIAL,
    )


def encoder(tokenizer: PreTrainedTokenizerBase, width: int, layers: int) -> PreTrainedModel:
    """A random DistilBERT with one output, the score."""
    from transformers import AutoModelForSequenceClassification, DistilBertConfig

    config = DistilBertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=CONTEXT,
        dim=width,
        hidden_dim=2 * width,
        n_layers=layers,
        n_heads=4,
        pad_token_id=tokenizer.pad_token_id,
        num_labels=1,
    )
    return AutoModelForSequenceClassification.from_config(config)


def encode(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row]) -> list[Row]:
    """The pairs as TRL's `chosen_ids` and `rejected_ids`, encoded as PPO's rewards encode texts."""
    from rlhf_lib.rewards import encode_pair, prompt_text

    def ids(row: Row, key: str) -> list[int]:
        return encode_pair(tokenizer, prompt_text(row["prompt"]), row[key][0]["content"], CONTEXT)["input_ids"]

    pairs = [{f"{key}_ids": ids(row, key) for key in ("chosen", "rejected")} for row in rows]
    return [{**pair, "length": max(map(len, pair.values()))} for pair in pairs]


if __name__ == "__main__":
    main()
