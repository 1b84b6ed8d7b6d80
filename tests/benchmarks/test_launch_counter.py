"""The counter of what a GPU would be asked to do, on operators, waits and bytes that are counted by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.launches.counter import HEAD_WIDTH, Counts, Launches, Made

DEVICE = torch.device("cpu")  # stands for the GPU


def on_device(values):
    return torch.tensor(values, device=DEVICE)


# ---- Operators


def test_operators_that_compute_are_counted_and_views_are_not():
    layer = nn.Linear(3, 5, bias=False)
    with Launches(layer) as launches:
        x = torch.ones(2, 3).to(DEVICE)
        layer(x).relu().view(-1).sum()
    assert launches.now.calls == {"mm": 1, "relu": 1, "sum": 1}
    assert sum(launches.now.uploads.values()) == 1
    assert not launches.now.waits


def test_the_backward_pass_is_counted():
    layer = nn.Linear(3, 5, bias=False)
    with Launches(layer) as launches:
        loss = layer(torch.ones(2, 3).to(DEVICE)).relu().sum()
        launches.restart()
        loss.backward()
    # the gradient of the loss, of the relu, and of the weight
    assert launches.now.calls == {"ones_like": 1, "threshold_backward": 1, "mm": 1}


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x + x

    @staticmethod
    def backward(ctx, gradient):
        return gradient.sin() if gradient.sum().item() else gradient


def test_what_python_does_in_the_backward_pass_is_counted():
    weight = nn.Linear(2, 1).weight
    with Launches() as launches:
        x = weight.to(DEVICE)
        loss = Twice.apply(x).sum()
        launches.restart()
        loss.backward()
    assert launches.now.calls["sin"] == 1
    assert launches.now.waits == {"item: tests/benchmarks/test_launch_counter.py backward": 1}


def test_the_hosts_own_work_counts_for_nothing():
    with Launches(nn.Linear(3, 5)) as launches:
        x = torch.arange(4.0)
        assert x[x > 1].tolist() == [2.0, 3.0]
        assert (x + 1).sum().item() == 10
        assert x.nonzero().cpu().size(0) == 3
        torch.zeros(4).copy_(x)
    assert launches.now == Counts()


def test_what_is_made_on_the_device_is_the_devices():
    with Launches() as launches:
        zeros = torch.zeros(2, 3, device=DEVICE)
        assert launches.is_on_device(zeros + 1) and launches.is_on_device(zeros.new_ones(1))
        assert launches.is_on_device(torch.ones(1).to(zeros)) and launches.is_on_device(torch.ones(1).to(device=DEVICE))
        assert not launches.is_on_device(torch.zeros(2)) and not launches.is_on_device(zeros.cpu() + 1)
    assert sum(launches.now.calls.values()) == 3  # zeros, add, new_ones
    assert sum(launches.now.uploads.values()) == 2


def test_what_is_made_beside_a_tensor_of_the_host_is_the_hosts():
    with Launches() as launches:
        x = torch.ones(3)
        beside = torch.full((2,), 1.0, device=x.device)
        beside[0] = x[0]
        assert beside.device.type == "cpu" and beside.tolist() == [1.0, 1.0]
    assert launches.now == Counts()


def test_what_an_operator_makes_for_itself_is_where_its_inputs_are():
    with Launches() as launches:
        torch.nn.utils.rnn.pad_sequence([on_device([1.0]), on_device([2.0, 3.0])])
    assert not launches.now.waits


class Filled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 1

    @staticmethod
    def backward(ctx, gradient):
        filled = torch.empty(gradient.shape, device=gradient.device)
        filled[0] = gradient[0]
        filled[1:] = gradient[1:]
        return filled


def test_what_the_backward_pass_makes_is_the_devices():
    with Launches() as launches:
        x = on_device([1.0, 2.0, 3.0]).requires_grad_()
        mask = x > 1
        launches.restart()
        Filled.apply(x)[mask].sum().backward()
    # forwards and backwards by the mask
    assert sorted(wait.partition(":")[0] for wait in launches.now.waits.elements()) == ["mask as index"] * 2
    assert not launches.now.uploads


def test_a_copy_to_the_device_leaves_the_original_on_the_host():
    with Launches() as launches:
        x = torch.ones(3)
        assert launches.is_on_device(x.to(DEVICE))
        assert x.sum().item() == 3
    assert not launches.now.waits and not launches.now.calls


# ---- Waits


@pytest.mark.parametrize(
    ("what", "name"),
    [
        (lambda x: x.sum().item(), "item"),
        (lambda x: bool(x.any()), "item"),
        (lambda x: int(x.max()), "item"),
        (lambda x: x.tolist(), "tolist"),
        (lambda x: x.cpu(), "copy to the host"),
        (lambda x: x.double().to("cpu"), "copy to the host"),
        (lambda x: torch.zeros(3).copy_(x), "copy to the host"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: x.masked_select(x > 1), "masked_select"),
        (lambda x: x[x > 1], "mask as index"),
        (lambda x: x.unique(), "_unique2"),
        (lambda x: x.repeat_interleave(x.long()), "repeat_interleave"),
    ],
)
def test_the_host_waits(what, name):
    with Launches() as launches:
        what(on_device([1.0, 2.0, 3.0]))
    (found,) = launches.now.waits.elements()
    assert found.startswith(f"{name}: tests/benchmarks/test_launch_counter.py ")


@pytest.mark.parametrize(
    "what",
    [
        lambda x: x.to(DEVICE),
        lambda x: x.double(),
        lambda x: x.masked_fill(x > 1, 0.0),
        lambda x: x.__setitem__(x > 1, 0.0),  # that is masked_fill
        lambda x: torch.where(x > 1, x, 0.0).sum(),
        lambda x: x[on_device([0, 1])],
        lambda x: x.masked_scatter(x > 1, x),
        lambda x: x.repeat_interleave(x.long(), output_size=6),
        lambda x: x.repeat_interleave(2),
    ],
)
def test_the_host_goes_on(what):
    with Launches() as launches:
        what(on_device([1.0, 2.0, 3.0]))
    assert not launches.now.waits


def test_an_index_of_the_host_is_uploaded():
    with Launches() as launches:
        x = on_device([1.0, 2.0, 3.0])
        launches.restart()
        _ = x[torch.tensor([0, 2])]
    assert launches.now.uploads == {
        "index: tests/benchmarks/test_launch_counter.py test_an_index_of_the_host_is_uploaded": 1
    }


# ---- Memory


def test_bytes_are_those_of_what_is_alive():
    with Launches() as launches:
        a = torch.zeros(1000, device=DEVICE)  # 4,000 bytes
        b = a + 1
        del a
        c = torch.cat([b, b[:500]])  # 6,000
        del b
        _ = c[:10].view(2, 5) + 1  # 40
        assert launches.now.peak_bytes == 10_000
        assert launches.now.largest == Made(6000, "cat", (1500,))
        launches.restart()
        assert launches.now.peak_bytes == 6000 + 40


def test_what_the_backward_pass_keeps_is_alive():
    weight = nn.Parameter(torch.ones(7))
    with Launches(nn.ParameterList([weight])) as launches:
        # exp keeps its output, sin its input, which is the same; the product is gone when sin comes
        x = (weight.expand(3, 7) * 2).exp().sin()
        assert launches.now.peak_bytes == 2 * 3 * 7 * 4
        launches.restart()
        assert launches.now.peak_bytes == 2 * 3 * 7 * 4
        del x
        launches.restart()
        assert launches.now.peak_bytes == 0


def test_a_weights_gradient_is_no_activation():
    head = nn.Linear(3, HEAD_WIDTH, bias=False)
    with Launches(head) as launches:
        head(torch.ones(2, 3).to(DEVICE)).sum().backward()
    assert launches.now.largest_of_head == Made(2 * HEAD_WIDTH * 4, "mm", (2, HEAD_WIDTH))
    assert launches.now.largest == launches.now.largest_of_head


def test_counts_apart_are_not_counted_around():
    with Launches() as launches:
        x = on_device([1.0])
        with launches.apart() as inner:
            x.exp()
        x.sin()
    assert (inner.calls, launches.now.calls) == ({"exp": 1}, {"sin": 1})
