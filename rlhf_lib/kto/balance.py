"""How good and bad answers weigh against each other."""

from __future__ import annotations

from rlhf_lib.kto.params import KTOParams

LOW, HIGH = 1.0, 1.33  # good : bad, weighted: equation 8 of KTO [Ethayarajh 2024, arXiv:2402.01306], as TRL bounds it


def told(good: int, bad: int, params: KTOParams) -> str | None:
    """A line where the ratio of good to bad answers, by number times weight, is not within `LOW` and `HIGH`, with the
    weights that would bring it there; None where it is, or where one kind has no weight."""
    if not params.desirable_weight or not params.undesirable_weight:
        return None
    if not good or not bad:
        return (
            f"kto: all {good or bad:,} answers are {'good' if good else 'bad'}: there is nothing to tell them from; "
            f"add {'bad' if good else 'good'} ones"
        )
    ratio = good * params.desirable_weight / (bad * params.undesirable_weight)
    # to two digits, as the weights are told
    if LOW - 0.005 <= ratio <= HIGH + 0.005:
        return None
    if good < bad:
        name, ends = "desirable_weight", [bad * params.undesirable_weight / good * end for end in (LOW, HIGH)]
    else:
        name, ends = "undesirable_weight", [good * params.desirable_weight / bad / end for end in (HIGH, LOW)]
    return (
        f"kto: {good:,} good and {bad:,} bad answers weigh {ratio:.2f} to 1, where {LOW:g} to {HIGH:g} is advised; set "
        f"kto.{name} to {ends[0]:.2f} to {ends[1]:.2f}"
    )
