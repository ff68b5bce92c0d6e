"""A device that is not there: tensors that claim to lie on it and compute in ordinary memory.

A real GPU refuses an operation whose tensors lie on different devices, and `numpy` of what lies on
it. So does this one, on any machine: a `Distant` says that it is on torch's device "meta" and holds
a real tensor; every operation on it is checked, then done by the processor. Refused where a GPU
refuses: tensors of memory beside distant ones, except single numbers, indices, and copies.
"""

from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")
_COPIES = ("aten::_to_copy", "aten::copy_", "aten::set_")
# What takes indices, or masks, from memory.
_INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")


class Distant(torch.Tensor):
    """Hold a tensor of memory and say that it lies on the pretended device."""

    @staticmethod
    def __new__(cls, held):
        """Wrap a plain tensor; views share its storage, so that writing in place is seen."""
        found = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), dtype=held.dtype, device=DEVICE
        )
        found.held = held
        return found

    def __repr__(self):
        return f"Distant({self.held})"

    def tolist(self):
        """Return the values; on a GPU this waits for them."""
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        """Check where the tensors lie, and compute."""
        return _compute(function, args, kwargs or {})


@contextmanager
def pretend_device():
    """Let new tensors be made on the pretended device as well."""
    modes = torch.inference_mode
    enter, leave = modes.__enter__, modes.__exit__
    # In inference mode torch takes ways past every dispatch; without gradients it takes none.
    modes.__enter__ = lambda self: _no_gradients(self).__enter__()
    modes.__exit__ = lambda self, *error: _no_gradients(self).__exit__(*error)
    try:
        with _Dispatch(), _FromLists():
            yield
    finally:
        modes.__enter__, modes.__exit__ = enter, leave


def _no_gradients(mode):
    mode.instead = getattr(mode, "instead", None) or torch.no_grad()
    return mode.instead


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _compute(function, args, kwargs or {})


class _FromLists(TorchFunctionMode):
    """Send what is made from lists through memory: torch makes it past every dispatch."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function is torch.Tensor.new_tensor:
            like, *args = args
            kwargs = {"device": like.device, "dtype": like.dtype, **kwargs}
            function = torch.tensor
        if function is torch.tensor and kwargs.get("device") == DEVICE:
            return torch.tensor(*args, **{**kwargs, "device": "cpu"}).to(DEVICE)
        return function(*args, **kwargs)


def _compute(function, args, kwargs):
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
    is_distant = any(isinstance(x, Distant) for x in tensors)
    name = function._schema.name
    target = kwargs.get("device")
    makes_distant = target is not None and torch.device(target) == DEVICE
    if is_distant and not name.startswith(_COPIES):
        _refuse_mixture(name, args, tensors)
    if makes_distant:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    held_args, held_kwargs = tree_map(_held, (args, kwargs))
    found = function(*held_args, **held_kwargs)
    stays = is_distant and target is None
    if name == "aten::copy_":
        stays = isinstance(args[0], Distant)
    if not (makes_distant or stays):
        return found
    # An operation in place returns what it was given, not another tensor of the same values.
    own = {id(x.held): x for x in tensors if isinstance(x, Distant)}
    return tree_map(lambda x: _distant(x, own), found)


def _refuse_mixture(name, args, tensors):
    strangers = [x for x in tensors if not isinstance(x, Distant) and x.ndim > 0]
    if name in _INDEXING and isinstance(args[0], Distant):
        indices = {id(x) for x in args[1] if x is not None}
        strangers = [x for x in strangers if id(x) not in indices]
    if strangers:
        shapes = [tuple(x.shape) for x in strangers]
        raise RuntimeError(f"{name}: tensors in memory beside the device's, of shapes {shapes}")


def _held(value):
    return value.held if isinstance(value, Distant) else value


def _distant(value, own):
    if not isinstance(value, torch.Tensor):
        return value
    return own[id(value)] if id(value) in own else Distant(value)
