"""Tensors that are written out or drawn, and their comparison."""

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import tensor

SOME = settings(max_examples=50, deadline=None)


def doubles(*rows):
    return tensor(rows, dtype=torch.float64)


def logits(size):
    return st.lists(st.floats(-4, 4), min_size=size, max_size=size).map(lambda x: tensor(x, dtype=torch.float64))


def close(actual, expected, tolerance=1e-6):
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), atol=tolerance, rtol=0)
