"""p-values, by hand."""

import pytest

from rlhf_lib.report.holm import holm, two_sided


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_a_number_is_judged_by_its_error():
    assert two_sided(-1.959964, 1.0) == pytest.approx(0.05)
    assert two_sided(0.2, None) == two_sided(0.0, 0.0) == 1 and two_sided(0.2, 0.0) == 0
