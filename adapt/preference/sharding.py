"""`train.shard: fsdp`: weights, gradients and Adam's moments are divided among the workers.

Each worker holds an equal share of every tensor, by PyTorch's FSDP2 (`fully_shard`): of full
training 16 bytes a weight divided by the number of workers, of the base under adapters what that is
held in. A block of the decoder or of the tower is put together when its turn comes, and let go
after it; what lies outside of blocks (embeddings, projector, output layer) stays whole during a
pass. Queries, keys and all other activations are of the worker's own rows and are whole, so that
capture and prefix sharing see what they see without it.

All of it is symmetric: a forward pass exchanges weights, so all workers make the same number of
them, and none does anything with the model alone. The model is divided before its first pass. The
reference is computed with divided weights as well, and a worker's accelerator never holds all of
them; its main memory does, while the model is loaded and when the first one writes the result.

accelerate has a plugin for this, which takes no CPU workers (it would train undivided there,
without a word), and whose checkpoints are pickled or gathered. The road here is the one that
transformers keeps for models that were divided by `from_pretrained`: the model takes care of its
placement and of its gradients, and nothing wraps it.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import peft
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from trl import DPOTrainer

from adapt.models.load import load_model
from adapt.models.roles import blocks
from adapt.params import InputError
from adapt.preference import adapters, shards
from adapt.preference.best import Best
from adapt.preference.offloaded import OffloadedAdamW, home


def divide(model: nn.Module, device: torch.device) -> None:
    """Divide all tensors of a model among the processes, and leave each one's share on `device`."""
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for name in blocks(model):
        fully_shard(model.get_submodule(name), mesh=mesh)
    fully_shard(model, mesh=mesh)


def let_go(model: nn.Module) -> None:
    """Back to shares where a pass without gradients has left weights whole.

    Whoever reads parameters or writes into them comes here first: the whole copies are neither
    those that the optimizer knows, nor would they notice.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


class ShardTrainer(DPOTrainer):
    """TRL's trainer of a model that is divided among the processes, or is not.

    Args:
        shard: whether it is. The model comes on the CPU then.
        offload: whether AdamW's moments live in main memory.
    """

    ref_model: nn.Module | None

    def __init__(
        self, *args: Any, shard: bool = False, offload: bool = False, **kwargs: Any
    ) -> None:
        self.is_sharded, self.is_offloaded = shard, offload
        super().__init__(*args, **kwargs)
        if not shard:
            return
        if self.ref_model is not None:  # another name for the policy, whose hooks it lacks
            self.accelerator._models.remove(self.ref_model)
            self.ref_model = None
        self.accelerator.device_placement = True
        divide(self.model, self.accelerator.device)
        # What transformers calls a model that takes care of its placement and its gradients.
        self.is_distributed_loading_by_transformers = True

    def create_accelerator_and_postprocess(self) -> None:
        """Nothing is moved to the accelerator before it is divided."""
        super().create_accelerator_and_postprocess()
        if self.is_sharded:
            self.accelerator.device_placement = False

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Of the shares; as transformers makes it, wherever its moments live."""
        let_go(self.model)
        if self.is_offloaded:
            _, how = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            self.optimizer_cls_and_kwargs = (OffloadedAdamW, how)
        return super().create_optimizer(model)

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """The norm is that of all shares together."""
        norm = super()._clip_grad_norm(model)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def _defer_fsdp_gradient_reduction(self) -> nullcontext[None]:
        """Gradients are divided after every pass: kept until the last one, they would be whole."""
        return nullcontext()

    @contextmanager
    def _speaking(self) -> Iterator[Any]:
        """The model as text is made with it, inside the block.

        Of a divided model all processes make the same number of passes: who has said all goes on
        until the others have, too, and what comes behind its ends belongs to no answer.
        """
        model = self.accelerator.unwrap_model(self.model)
        inner = model.get_base_model() if isinstance(model, peft.PeftModel) else model
        if not self.is_sharded:
            yield inner
            return
        # What lies outside of blocks: the pass begins inside of the adapters. FSDP's very first one
        # must not be such a one, nor under `inference_mode`: it was the one that checks the head.
        model.unshard()
        inner._has_unfinished_sequences = self._has_unfinished
        try:
            yield inner
        finally:
            del inner._has_unfinished_sequences
            let_go(model)

    def _has_unfinished(self, this_peer_finished: bool, *_: Any, **__: Any) -> bool:
        """Whether an answer of any process goes on; `generate` asks before every pass."""
        flag = torch.tensor(float(not this_peer_finished), device=self.accelerator.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag)

    # ---- checkpoints ---------------------------------------------------------------------------

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Of a divided model what is trained, and what the optimizer knows of it."""
        if not self.is_sharded:
            return super().save_model(output_dir, _internal_call)
        assert output_dir is not None, "checkpoints have a folder"
        trained = self._trained().items()
        weights = {f"{shards.WEIGHTS}/{name}": (each, each) for name, each in trained}
        shards.write(Path(output_dir), weights | shards.state_of(self.optimizer, self._names()))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_sharded:
            super()._save_optimizer_and_scheduler(output_dir)
        elif self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULE)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        checkpoint = Path(resume_from_checkpoint)
        if not shards.are_in(checkpoint):
            if self.is_sharded:
                problem = f"{checkpoint} was made with train.shard: none, and cannot be divided"
                raise InputError(f"{problem}; go on with that, or remove it to start anew")
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        let_go(self.model)
        with shards.opened(checkpoint) as found:
            for name, parameter in self._trained().items():
                found.fill(f"{shards.WEIGHTS}/{name}", parameter)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        is_divided = checkpoint is not None and shards.are_in(Path(checkpoint))
        if checkpoint is None or not (is_divided or self.is_offloaded):
            return super()._load_optimizer_and_scheduler(checkpoint)
        self.lr_scheduler.load_state_dict(_read(checkpoint, SCHEDULE))
        if not is_divided:
            return self.optimizer.load_state_dict(_read(checkpoint, OPTIMIZER))
        with shards.opened(Path(checkpoint)) as found:
            made = home if self.is_offloaded else torch.zeros_like
            shards.fill_state(found, self.optimizer, self._names(), made)
        rates = self.lr_scheduler.get_last_lr()
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def _trained(self) -> dict[str, nn.Parameter]:
        """What a checkpoint has to have: the rest stays as the base has it."""
        let_go(self.model)
        return {n: each for n, each in self.model.named_parameters() if each.requires_grad}

    def _names(self) -> dict[int, str]:
        return {id(each): name for name, each in self._trained().items()}

    # ---- the result ----------------------------------------------------------------------------

    def whole_model(self, base: Path, best: Best | None = None) -> Any:
        """The trained model, undivided; with adapters it still has them.

        All processes take part. One that was divided is on the CPU of the first process, and None
        at the others. `best`: weights of the first process that it has instead of the latest.
        """
        model, is_first = self.accelerator.unwrap_model(self.model), self.is_world_process_zero()
        if not self.is_sharded:
            if best is not None and is_first:
                best.fill(model)
            return model
        # 1. Moments that live in main memory make room. One tensor after another is put together;
        #    the first process keeps it.
        if self.is_offloaded:
            self.optimizer.state.clear()
        tensors = self._whole_tensors() if best is None else ()
        kept = {name: tensor.cpu() for name, tensor in tensors if is_first}
        if not is_first:
            return None
        # 2. All others are as they were.
        fresh = load_model(base)
        if isinstance(model, peft.PeftModel):
            fresh = adapters.likewise(fresh, model)
        parameters = dict(fresh.named_parameters())
        for name, tensor in kept.items():
            parameters[name].data.copy_(tensor)
        if best is not None:
            best.fill(fresh)
        return fresh

    def _whole_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """What is trained, one tensor after another, undivided; all processes take part."""
        for name, parameter in self._trained().items():
            tensor = parameter.detach()
            yield name, tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


SCHEDULE, OPTIMIZER = "scheduler.pt", "optimizer.pt"  # as transformers names them


def _read(checkpoint: str, name: str) -> dict[str, Any]:
    """A file of a checkpoint, of which no GPU sees anything: tensors stay on disk until needed."""
    path = Path(checkpoint) / name
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
