"""The base model and tokenizer -> models/base."""

from rlhf_lib.base.params import BaseParams
from rlhf_lib.common import environment, left_out, paths, running
from rlhf_lib.common.schema import PARAMS_FILE, read
from rlhf_lib.common.yaml import ParamsError


def main() -> None:
    params = read("base", BaseParams)
    environment.prepare(offline=params.model_name_or_path is None)
    with environment.importing():
        from rlhf_lib.base import contract
        from rlhf_lib.base import model as base
        from rlhf_lib.common.rows import read_jsonl
        from rlhf_lib.models import loading as models
        from rlhf_lib.models.templates import check_file

    if params.model_name_or_path is None:
        rows = read_jsonl(paths.split("sft_train"))
        if not rows:
            raise ParamsError(
                f"{PARAMS_FILE}: base.model_name_or_path: {left_out.reason(paths.split('sft_train'))}, from which a "
                "fresh model has its tokens; name a pretrained model"
            )
        texts = [message["content"] for row in rows for message in row["prompt"] + row["completion"]]
        tokenizer = base.fresh_tokenizer(texts, params.vocab_size)
        model = base.fresh_model(params, tokenizer)
    else:
        model, tokenizer = base.pretrained(params)
    had_template = tokenizer.chat_template is not None
    new_tokens = base.complete(model, tokenizer, params.seed)
    found = contract.examine(model, tokenizer, had_template, new_tokens)
    check_file(paths.split("sft_train"), tokenizer)
    models.save(model, tokenizer, paths.BASE)
    found.write(paths.BASE)
    print(f"base: {model.num_parameters():,} parameters, {len(tokenizer):,} tokens")
    print(*(f"  {part}: {told}" for part, told in found.told()), sep="\n")


if __name__ == "__main__":
    running.run(main)
