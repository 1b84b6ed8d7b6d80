"""What a model can be asked for, found out by forward passes of a few tokens instead of taken from its name.

Whether its rows may lie end to end, whether they may be padded on the left, whether it decodes from a cache as it
reads, and whether it is a causal language model at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_lib.common.hub import one_line
from rlhf_lib.common.running import outer_fault
from rlhf_lib.models import frozen, hardware
from rlhf_lib.models.attention import IMPLEMENTATION, takes_packing
from rlhf_lib.models.forward import Steps, forward_takes, logits_where, trunk
from rlhf_lib.models.lengths import say
from rlhf_lib.models.packing import packed_inputs
from rlhf_lib.models.seeds import seeded
from rlhf_lib.models.windows import WATCHED, watched

# Of a token's logits, relative to their spread: what rounding may make different in fp32, and in 16 bits or less.
TOLERANCE, COARSE_TOLERANCE = 1e-4, 0.05
LONGEST = 8  # tokens of a row
SMALL_WINDOW = 32  # tokens; rows are made longer than such sliding windows
ATTENTION_LAYERS = {"full_attention", "sliding_attention"}


class Proof(NamedTuple):
    """Whether a model's rows may lie end to end."""

    packs: bool
    difference: float | None  # largest of a token's logits from those of padded rows, in their spread; None: unknown
    reason: str | None  # why not


def prove_packing(model: PreTrainedModel) -> Proof:
    """Whether rows end to end have the logits (of a classifier or a trunk, the hidden states) of padded ones.

    Three forward passes of three short rows. What the rows are too short to show is compared as such: each layer must
    hand on the sliding window that its mask has.
    """
    if reason := _unprovable(model):
        return Proof(False, None, reason)
    rows = _rows(model)
    try:
        with _trial(model):
            expected = _of_rows(model, rows)
            with _attending(model, WATCHED), watched() as windows:
                padded = _of_rows(model, rows)
            with _attending(model, IMPLEMENTATION):
                packed = _of_packed(model, rows)
    except Exception as error:  # whatever a model makes of inputs that it does not know
        return Proof(False, None, _models_own(error))
    difference = max(_difference(padded, expected), _difference(packed, expected))
    if not math.isfinite(difference):
        return Proof(False, None, "where its rows end does not reach all its layers")
    if windows.told:
        return Proof(False, difference, windows.told)
    if difference > _tolerance(model):
        return Proof(False, difference, f"logits of rows end to end differ by {difference:.1%} of their spread")
    return Proof(True, difference, None)


def takes_left_padding(model: PreTrainedModel) -> bool:
    """Whether rows of different lengths may be padded on the left in one batch, as they are to be sampled together.

    What takes packed rows looks nowhere but at positions and masks. Others are tried, once.
    """
    if takes_packing(model):
        return True
    if model not in _PADDED_LEFT:
        _PADDED_LEFT[model] = _pads_left(model)
    return _PADDED_LEFT[model]


def takes_cache(model: PreTrainedModel) -> bool:
    """Whether a causal language model that decodes from its cache, while rows leave the batch, finds what reading whole
    rows does. It is tried, once."""
    if model not in _CACHED:
        rows = _rows(model)
        try:
            with _trial(model):
                whole = [_of_rows(model, [row])[0] for row in rows]
                _CACHED[model] = _difference(_decoded(model, rows), whole) <= _tolerance(model)
        except Exception as error:  # whatever a model makes of a cache that is not its own
            _models_own(error)
            _CACHED[model] = False
        if not _CACHED[model]:
            say(
                f"{type(model).__name__} decodes from no cache that is known here: each token costs a pass over its row"
            )
    return _CACHED[model]


_PADDED_LEFT: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
_CACHED: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def unfit(model: PreTrainedModel) -> str | None:
    """Why a model that was loaded as a causal language model cannot be trained and sampled here, in one line that names
    the architecture and the part; None where it can.

    Tokens must not see those that follow, and hidden states must be found for PPO's critic.
    """
    name, rows = type(model).__name__, _rows(model)
    try:
        with _trial(model):
            whole = [_of_rows(model, [row])[0] for row in rows]
            cut = _of_rows(model, [row[:-1] for row in rows])
            shows = _shows_hidden_states(model, rows[0])
    except Exception as error:  # whatever a model makes of inputs that it does not know
        return f"{name}: its forward pass fails: {_models_own(error)}"
    if not all(bool(logits.isfinite().all()) for logits in whole):
        return f"{name}: its logits are not finite; name a model whose training went well"
    if _difference(cut, [logits[:-1] for logits in whole]) > _tolerance(model):
        return f"{name}: no causal language model: a token's logits change with the tokens that follow it"
    if not shows:
        return f"{name}: its last hidden states, which PPO's critic reads, are not found"
    return None


def _pads_left(model: PreTrainedModel) -> bool:
    rows = _rows(model)
    width = max(map(len, rows))
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
    # filled up with a token that is one: an embedding of zeros, as of padding, would leave no trace in a recurrence
    ids = torch.full_like(mask, int(rows[0][0])).masked_scatter_(mask.bool(), torch.cat(rows))
    try:
        with _trial(model):
            found = _states(model, ids, mask).split([len(row) for row in rows])
            return _difference(found, _of_rows(model, rows)) <= _tolerance(model)
    except Exception as error:  # whatever a model makes of inputs that it does not know
        _models_own(error)
        return False


def _models_own(error: Exception) -> str:
    """What a model's error says. One that is the machine's, such as that no memory is left, says nothing of the model,
    and is raised again."""
    if outer_fault(error) is not None:
        raise error
    return f"{type(error).__name__}: {one_line(error)}"


def _unprovable(model: PreTrainedModel) -> str | None:
    """Why no forward pass is worth while."""
    if not model._supports_attention_backend:
        return "its attention is its own, not one of those that transformers lets choose"
    if not forward_takes(model, "position_ids"):
        return "its forward pass takes no position_ids"
    layers = set(getattr(model.config.get_text_config(), "layer_types", None) or ()) - ATTENTION_LAYERS
    if layers:
        return f"layers of type {', '.join(sorted(layers))}, which are not attention to all tokens or in a window"
    if any(weight.is_meta or not weight.numel() for weight in model.parameters()):
        return "its weights are not all in this process"
    return None


def _rows(model: PreTrainedModel) -> list[Tensor]:
    """Three rows of tokens, always the same, of which the first is the longest; none is padding. The last one begins as
    the first does."""
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None) or SMALL_WINDOW + 1
    longest = window + 4 if window <= SMALL_WINDOW else LONGEST
    longest = min(longest, getattr(config, "max_position_embeddings", None) or longest)
    vocabulary = model.get_input_embeddings().num_embeddings
    lengths = [longest, max(1, longest // 2), max(1, longest - 1)]
    ids = torch.randint(vocabulary, (sum(lengths),), generator=seeded("proof", vocabulary))
    if (pad := getattr(config, "pad_token_id", None)) is not None:
        ids[ids == pad] = (pad + 1) % vocabulary
    rows = list(ids.to(model.device).split(lengths))
    half = longest // 2
    rows[2][:half] = rows[0][:half]
    return rows


@contextmanager
def _trial(model: PreTrainedModel) -> Iterator[None]:
    """A context in which the model computes for a proof, and after which it is as before."""
    was_training = model.training
    model.eval()
    try:
        # in full precision, whatever the trainer around it computes in
        without_autocast = torch.autocast(model.device.type, enabled=False)
        with torch.no_grad(), without_autocast, hardware.multiplying_in_full(), frozen.in_fp32(model):
            yield
    finally:
        model.train(was_training)


@contextmanager
def _attending(model: PreTrainedModel, implementation: str) -> Iterator[None]:
    """A context in which the model has this attention."""
    own = model.config._attn_implementation
    model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        model.set_attn_implementation(own)


def _states(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> Tensor:
    """(n, V) logits, or (n, D) hidden states of a classifier or a trunk, of the n tokens of a padded batch."""
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    given = {"position_ids": positions} if forward_takes(model, "position_ids") else {}
    return _outputs(model, mask.bool(), input_ids=ids, attention_mask=mask, use_cache=False, **given)


def _outputs(model: PreTrainedModel, wanted: Tensor, **inputs: Any) -> Tensor:
    """As `_states`, where (B, T) `wanted` is True."""
    if model.get_output_embeddings() is None:
        return model.base_model(**inputs)[0][wanted]
    return logits_where(model, wanted, inputs)


def _of_rows(model: PreTrainedModel, rows: Sequence[Tensor]) -> Sequence[Tensor]:
    """(n, V) for each row, of a batch that is padded on the right."""
    ids = nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return _states(model, ids, mask).split([len(row) for row in rows])


def _of_packed(model: PreTrainedModel, rows: Sequence[Tensor]) -> Sequence[Tensor]:
    """(n, V) for each row, of rows end to end."""
    lengths = [len(row) for row in rows]
    inputs = packed_inputs([row.tolist() for row in rows], lengths, model.device)
    places = inputs["packing"].places(map(range, lengths)).to(model.device)
    found = _outputs(model, torch.ones_like(inputs["input_ids"], dtype=torch.bool), **inputs)
    return found.index_select(0, places).split(lengths)


def _shows_hidden_states(model: PreTrainedModel, row: Tensor) -> bool:
    """Whether a hook on the trunk sees, once, states as wide as what the output layer reads."""
    seen: list[Any] = []
    hook = trunk(model).register_forward_hook(lambda module, inputs, output: seen.append(output[0]))
    try:
        _of_rows(model, [row])
    finally:
        hook.remove()
    return [tuple(x.shape) for x in seen] == [(1, len(row), model.get_output_embeddings().in_features)]


def _decoded(model: PreTrainedModel, rows: Sequence[Tensor]) -> list[Tensor]:
    """(n, V) for each row, but for its first tokens, decoded a token at a time; rows leave the batch as they end.

    What is read first is of one length, so that nothing is padded.
    """
    first = min(map(len, rows)) - 1 or 1
    found: list[list[Tensor]] = [[] for _ in rows]
    there = list(range(len(rows)))
    steps = Steps(model, max(map(len, rows)))
    ids, mask = torch.stack([row[:first] for row in rows]), torch.ones(len(rows), first, dtype=torch.long)
    ids, mask = ids.to(model.device), mask.to(model.device)
    for end in range(first, max(map(len, rows)) + 1):
        positions = torch.arange(end - ids.size(1), end, device=model.device).expand(len(there), -1)
        logits = steps(ids, mask, positions)
        for row, of_row in zip(there, logits, strict=True):
            found[row].append(of_row)
        stay = [k for k, row in enumerate(there) if len(rows[row]) > end]
        if not stay:
            break
        if len(stay) < len(there):
            steps.keep(torch.tensor(stay, device=model.device))
            there = [there[k] for k in stay]
        ids = torch.stack([rows[row][end : end + 1] for row in there])
        mask = mask.new_ones(len(there), end + 1)
    return [torch.stack(of_row) for of_row in found]


def _difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference of a token's logits, relative to their spread; infinite where one is not finite. Of a row,
    the last tokens may be all that was found."""
    worst = 0.0
    for one, other in zip(found, expected, strict=True):
        one, other = one.double(), other[-len(one) :].double()
        spread = (other - other.mean(dim=-1, keepdim=True)).norm(dim=-1).clamp(min=1e-6)
        difference = ((one - other).norm(dim=-1) / spread).max().item()
        worst = max(worst, difference if one.isfinite().all() else float("inf"))
    return worst


def _tolerance(model: PreTrainedModel) -> float:
    """Weights of 8 or 4 bits are multiplied in 16, whatever type the model says it has."""
    is_coarse = model.dtype == torch.float16 or getattr(model, "is_quantized", False)
    return COARSE_TOLERANCE if is_coarse else TOLERANCE
