"""What a GPU would be asked to do, counted on a CPU: compute calls, waits of the host, uploads, memory.

A CPU has one memory, so what would lie on the device is told from where it comes from: the weights of the models, what
`.to(device)` and `device=` give where they name a `torch.device`, and all that is computed from these. `.cpu()` and
`.to("cpu")` bring it back to the host; what is made on the device of a tensor of the host is the host's. Work on the
host alone counts for nothing.
"""

from __future__ import annotations

import sys
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

ROOT = Path(__file__).resolve().parents[2]
# What a tensor of the host says its device is: to PyTorch the same as "cpu", by which all else names the device.
HOST = torch.device("cpu", 0)
_DEVICE_OF = Tensor.device.__get__
# Operators that launch no kernel, beside the views: they reserve memory, or ask for a value (which is a wait).
_NO_KERNEL = {
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_", "set_"),
    *("_unsafe_view", "_local_scalar_dense"),
}
# Operators whose result has a size or a value that the host must know before it can go on.
_WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "bincount", "equal", "_unique", "_unique2"} | {
    *("unique_dim", "unique_consecutive", "unique_dim_consecutive"),
}
# The last axis of what an output layer gives, or of a piece of it; nothing else in these models is as wide.
HEAD_WIDTH = 4096


class Made(NamedTuple):
    """A tensor that was made: its bytes, the operator, and its shape."""

    bytes: int = 0
    operator: str = ""
    shape: tuple[int, ...] = ()


NOTHING = Made()


@dataclass
class Counts:
    """What the device was asked to do: compute calls by operator; waits and uploads by what they are and where."""

    calls: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    uploads: Counter[str] = field(default_factory=Counter)
    # of what was made, but for tensors shaped as a weight (its gradient, the optimizer's moments)
    largest: Made = NOTHING
    largest_of_head: Made = NOTHING
    peak_bytes: int = 0  # of such tensors alive together


class Launches:
    """Counts into `now` within its context; `modules` have their weights on the device."""

    def __init__(self, *modules: nn.Module) -> None:
        self.now = Counts()
        self._on_device = WeakIdKeyDictionary()  # storages
        self._live = 0
        self._weights: set[tuple[int, ...]] = set()
        self._ignored = self._placing = False
        self._modes = (_Operators(self), _Moves(self))
        for module in modules:
            for tensor in (*module.parameters(), *module.buffers()):
                self._on_device[tensor.untyped_storage()] = True
                self._weights |= {tuple(tensor.shape), tuple(tensor.shape)[::-1]}

    def __enter__(self) -> Launches:
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)

    @contextmanager
    def apart(self) -> Iterator[Counts]:
        """A context whose counts are its own, and not part of what is counted around it."""
        around, self.now = self.now, Counts(peak_bytes=self._live)
        try:
            yield self.now
        finally:
            self.now = around

    def restart(self) -> None:
        """Count from 0."""
        self.now = Counts(peak_bytes=self._live)

    def is_on_device(self, x: Any) -> bool:
        """Whether a value is a tensor that would be on the device."""
        return isinstance(x, Tensor) and x.untyped_storage() in self._on_device

    def operator(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operator, and count it where it works on the device."""
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if self._ignored or not (self._placing or any(map(self.is_on_device, inputs))):
            return func(*args, **kwargs)
        name = func.__name__.partition(".")[0]
        if wait := self._wait(name, args, kwargs):
            self.now.waits[f"{wait}: {caller()}"] += 1
        if self._uploads(name, args):
            self.now.uploads[f"{name}: {caller()}"] += 1
        known = {id(x.untyped_storage()) for x in inputs}
        output = func(*args, **kwargs)
        if not func.is_view and name not in _NO_KERNEL:
            self.now.calls[name] += 1
        for made in tree_leaves(output):
            if isinstance(made, Tensor) and id(made.untyped_storage()) not in known:
                self._take(made, name)
        return output

    def _wait(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """What the host waits for in a call of an operator; None where it goes on."""
        if name in _WAITS:
            return {"_local_scalar_dense": "item"}.get(name, name)
        if name == "repeat_interleave" and kwargs.get("output_size") is None:
            return name
        if name == "copy_" and not self.is_on_device(args[0]):
            return "copy to the host"
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            masks = [x for x in args[1] if x is not None and x.dtype in (torch.bool, torch.uint8)]
            fills = name != "index" and len(masks) == 1 and args[2].numel() == 1  # that is masked_fill
            if not fills and any(map(self.is_on_device, masks)):
                return "mask as index"
        return None

    def _uploads(self, name: str, args: tuple[Any, ...]) -> bool:
        """Whether an operator takes something from the host to the device."""
        if name == "copy_":
            return self.is_on_device(args[0]) and not self.is_on_device(args[1])
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            return not all(self.is_on_device(x) for x in args[1] if x is not None)
        return False

    def _take(self, made: Tensor, name: str) -> None:
        """Know a new tensor as one of the device."""
        storage = made.untyped_storage()
        if storage in self._on_device:
            return
        self._on_device[storage] = True
        shape, size = tuple(made.shape), storage.nbytes()
        if shape in self._weights:
            return
        now, one = self.now, Made(size, name, shape)
        now.largest = max(now.largest, one)
        if len(shape) > 1 and shape[-1] >= HEAD_WIDTH:
            now.largest_of_head = max(now.largest_of_head, one)
        self._live += size
        now.peak_bytes = max(now.peak_bytes, self._live)
        weakref.finalize(storage, self._free, size).atexit = False

    def _free(self, size: int) -> None:
        self._live -= size

    def move(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function of Python that may take a tensor to the device or back, and count that."""
        if func == _DEVICE_OF:
            return func(*args) if self.is_on_device(args[0]) else HOST
        if func in (torch.tensor, torch.as_tensor):
            return self._moved(args[0], func(*args, **kwargs), kwargs.get("device"))
        if func in (Tensor.to, Tensor.cuda, Tensor.cpu):
            return self._moved(args[0], func(*args, **kwargs), _target(func, args, kwargs))
        if func in (Tensor.tolist, Tensor.numpy) and self.is_on_device(args[0]):
            self.now.waits[f"{func.__name__}: {caller()}"] += 1
        if func is Tensor.backward:
            options: dict[str, Any] = {"grad_tensors": kwargs.pop("gradient", None), **kwargs}
            with self._placed(True), self._modes[1]:  # for the Python that runs within
                return torch.autograd.backward(args[0], **options)
        target = kwargs.get("device")
        if target is None:  # what an operator makes for itself is where its inputs are
            with self._placed(any(map(self.is_on_device, tree_leaves((args, kwargs))))):
                return func(*args, **kwargs)
        with self._placed(_is_device(target)):
            return func(*args, **kwargs)

    @contextmanager
    def _placed(self, on_device: bool) -> Iterator[None]:
        """A context in which what is made from nothing is on the device, or is not."""
        before, self._placing = self._placing, on_device
        try:
            yield
        finally:
            self._placing = before

    def _moved(self, given: Any, output: Tensor, target: Any) -> Tensor:
        """`output` as a tensor of its own where `given` is on the other side than `target`."""
        is_on_device = self.is_on_device(given)
        if isinstance(target, Tensor):
            wanted = self.is_on_device(target)
        else:
            wanted = is_on_device if target is None else _is_device(target)
        if wanted == is_on_device:
            return output
        if isinstance(given, Tensor) and given.untyped_storage() is output.untyped_storage():
            self._ignored = True
            output = output.clone()
            self._ignored = False
        if wanted:
            self.now.uploads[f"copy: {caller()}"] += 1
            self._take(output, "copy")
        else:
            self.now.waits[f"copy to the host: {caller()}"] += 1
            self._on_device.pop(output.untyped_storage(), None)  # where it was also cast
        return output


def _is_device(target: Any) -> bool:
    """Whether a device that is named is the device, and not the host."""
    return isinstance(target, torch.device) and target != HOST


def _target(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Where `.to`, `.cuda` and `.cpu` take a tensor: a device, the tensor whose device is meant, "cpu", or None."""
    if func is Tensor.cpu:
        return "cpu"
    if func is Tensor.cuda:
        return torch.device("cpu")  # stands for the GPU
    target = kwargs.get("device", kwargs.get("other", args[1] if len(args) > 1 else None))
    return None if isinstance(target, torch.dtype) else target


def caller() -> str:
    """The file and the function, outside PyTorch and this file, that a call comes from."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        file = frame.f_code.co_filename
        if file != __file__ and "/torch/" not in file and not file.startswith("<"):
            break
        frame = frame.f_back
    path = Path(frame.f_code.co_filename)
    if "site-packages" in path.parts:
        shown = Path(*path.parts[path.parts.index("site-packages") + 1 :])
    else:
        shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else Path(path.name)
    return f"{shown.as_posix()} {frame.f_code.co_name}"


class _Operators(TorchDispatchMode):
    """Sees every operator, those of the backward pass too."""

    def __init__(self, counted: Launches) -> None:
        super().__init__()
        self.counted = counted

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        return self.counted.operator(func, args, kwargs or {})


class _Moves(TorchFunctionMode):
    """Sees the calls from Python, among them those that do nothing where host and device are one, as on a CPU."""

    def __init__(self, counted: Launches) -> None:
        super().__init__()
        self.counted = counted

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        return self.counted.move(func, args, kwargs or {})
