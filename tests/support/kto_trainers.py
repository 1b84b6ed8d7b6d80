"""KTO's trainer on the tiny model, and its rows: of each text a good and a bad answer, then more bad ones."""

from tiny_models import TEXTS
from trl_trainers import CHOSEN, REJECTED, TRAINER, assistant, dataset, user

from rlhf_lib.kto import trainer as kto
from rlhf_lib.kto.data import COLUMNS
from rlhf_lib.kto.params import KTOParams

KTO = {
    "max_length": 64,
    "precompute_ref_batch_size": 4,
    "beta": 0.5,
    "loss_type": "kto",
    "desirable_weight": 1.0,
    "undesirable_weight": 1.0,
}


def thumb(i, label, prompt=None):
    answer = assistant((CHOSEN if label else REJECTED)[i])
    return {"id": f"{i}-{label}", "source": "demo", "prompt": user(prompt or TEXTS[i]), "completion": answer} | {
        "label": label
    }


def thumb_rows():
    return [thumb(i, i % 3 != 0) for i in range(len(TEXTS))] + [thumb(i, i % 3 == 0) for i in range(4)]


def kto_params(**changes):
    return KTOParams(**{**TRAINER, **KTO, **changes})


def kto_trainer(tiny, checkpoints, rows=None, validation=None, model=None, **changes):
    train = dataset(thumb_rows() if rows is None else rows, COLUMNS)
    held_out = train if validation is None else dataset(validation, COLUMNS)
    return kto.build(kto_params(**changes), str(model or tiny.policy), train, held_out, checkpoints)
