"""`train.offload: optimizer`: AdamW whose moments live in main memory and come for an update only.

Two moments of a trained weight take 8 bytes, of 16 that full training holds. They are needed once a
step, when gradients are there and activations are not. So they visit the accelerator then, those of
one parameter after another, and go back: 16 bytes a weight cross the bus at each step, and room for
the two moments of the largest parameter is needed meanwhile. The update itself is PyTorch's, with
the kernel that it would take anyway; an update looks at each number alone, so weights and moments
are those of `torch.optim.AdamW` to the bit. So is its state, by its names: a checkpoint of one is a
checkpoint of the other.

For a GPU the pages are locked (pinned), as copies are several times slower otherwise, and the
memory is the system's own: what PyTorch locks is rounded up to a power of two. On a CPU the same
copies are made, to no end but that tests see them.
"""

import mmap
import weakref
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from adapt.params import InputError
from adapt.preference.shards import local

MOMENTS = ("exp_avg", "exp_avg_sq")
STEP = "step"
REFUSED = ("amsgrad", "maximize", "capturable", "differentiable")


class OffloadedAdamW(torch.optim.AdamW):
    """AdamW; of a parameter that is divided (FSDP), its state is this process's share, undivided
    tensors.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update all parameters that have a gradient; the moments are back when it returns."""
        assert closure is None and getattr(self, "grad_scale", None) is None, "no loss is scaled"
        devices = set()
        for group in self.param_groups:
            assert not any(group[name] for name in REFUSED), REFUSED
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
                    devices.add(parameter.device)
        # What reads them next, such as a checkpoint, does not wait for the GPU by itself.
        for device in devices:
            if device.type == "cuda":
                torch.cuda.current_stream(device).synchronize()

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        """Of one parameter. All of it is queued in one stream, so that a visit begins when the one
        before has ended, and takes its place.
        """
        state = self.state[parameter]
        if not state:
            state[STEP] = _count(parameter, group)
            state.update({name: home(parameter) for name in MOMENTS})
        weight, gradient = local(parameter), local(parameter.grad)
        is_async = weight.device.type == "cuda"
        visiting = [torch.empty_like(weight) for _ in MOMENTS]
        for name, moment in zip(MOMENTS, visiting, strict=True):
            moment.copy_(state[name], non_blocking=is_async)
        adamw(
            [weight],
            [gradient],
            *([moment] for moment in visiting),
            [],
            [state[STEP]],
            foreach=group["foreach"],
            fused=group["fused"],
            amsgrad=False,
            maximize=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
        )
        for name, moment in zip(MOMENTS, visiting, strict=True):
            state[name].copy_(moment, non_blocking=is_async)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what AdamW or this has saved; PyTorch's own would put moments onto the GPU."""
        # 1. The groups, and the steps where the kernel wants them.
        counts = {key: {STEP: one[STEP].clone()} for key, one in state_dict["state"].items()}
        super().load_state_dict({**state_dict, "state": counts})
        # 2. The moments. Parameters are saved by numbers, in the order of the groups.
        keys = [key for group in state_dict["param_groups"] for key in group["params"]]
        own = [parameter for group in self.param_groups for parameter in group["params"]]
        for key, parameter in zip(keys, own, strict=True):
            for name in MOMENTS if key in state_dict["state"] else ():
                moment = home(parameter)
                self.state[parameter][name] = moment.copy_(state_dict["state"][key][name])


def home(parameter: Tensor) -> Tensor:
    """A moment in main memory, zeros: of this process's share of a parameter.

    Raises InputError where there is too little memory that could be locked.
    """
    like = local(parameter)
    if like.numel() == 0:
        return torch.zeros(like.shape, dtype=like.dtype)
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # zeros, by whole pages that are nobody else's
    try:
        pages = mmap.mmap(-1, like.nbytes, flags=private)
        moment = torch.frombuffer(pages, dtype=like.dtype).view(like.shape)
        if like.device.type == "cuda":
            _lock(pages, moment)
    except (OSError, RuntimeError) as error:
        problem = f"{like.nbytes} more bytes of main memory cannot be had, or locked for the GPU"
        raise InputError(f"train.offload: {problem} ({error}); set it to none") from None
    return moment


def _lock(pages: mmap.mmap, moment: Tensor) -> None:
    """Lock a tensor's pages for copies to a GPU, until the tensor goes."""
    # A process that is forked later has no business with them.
    pages.madvise(mmap.MADV_DONTFORK)
    runtime, place = torch.cuda.cudart(), moment.data_ptr()
    torch.cuda.check_error(runtime.cudaHostRegister(place, moment.nbytes, 0))
    # Before the pages go; at the end of the process they go anyway.
    weakref.finalize(moment, runtime.cudaHostUnregister, place).atexit = False


def _count(parameter: Tensor, group: dict[str, Any]) -> Tensor:
    """The number of steps, where AdamW has it: on the device for the fused kernel."""
    device = parameter.device if group["fused"] else torch.device("cpu")
    return torch.zeros((), dtype=torch.float32, device=device)
