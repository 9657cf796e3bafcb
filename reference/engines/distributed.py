"""The processes of a run: what Accelerate launched, what they tell each other, and a model sharded over them (FSDP2).

The only file that imports accelerate. Data stages share out their items, with a whole model in each process; the two
training stages shard the policy. Alone, a process shards nothing and every exchange gives back what it was given.
"""

import atexit
import gc
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, debug, distribute_tensor
from torch.nn.utils import skip_init

from reference.interfaces import Share

Result = TypeVar("Result")
# A process waits for the slowest at the end of a stage; one that dies takes the others with it through the launcher.
PATIENCE = timedelta(days=7)
TRACKED_PROJECT = "learning-what-to-learn"


class Process:
    """One process of the run: its device, its rank among `size`, and the exchange of small objects with the others."""

    def __init__(self, device: torch.device = torch.device("cpu"), rank: int = 0, size: int = 1):
        self.device = device
        self.rank = rank
        self.size = size
        self.share = Share(rank, size)
        # Objects go through the CPU, whatever moves the tensors.
        self._objects = dist.new_group(backend="gloo", timeout=PATIENCE) if size > 1 else None
        self._tracking: Accelerator | None = None
        self._with_axis: set[str] = set()

    @classmethod
    def of_launch(cls, wanted: int | None = None) -> "Process":
        """The process as it was launched: alone, by `torchrun` or by `accelerate launch`.

        Raises:
            ValueError: fewer or more processes than the launch or `wanted` asked for; a launch setting that would
                silently do something else; sharding that leaves weights whole.
        """
        check_plugin(os.environ)
        patience = InitProcessGroupKwargs(timeout=PATIENCE)
        launched = Accelerator(cpu=not torch.cuda.is_available(), kwargs_handlers=[patience])
        check_launch(os.environ, launched.num_processes, wanted)
        if launched.device.type != "cpu":
            torch.set_float32_matmul_precision("high")  # TensorFloat-32, where autocast leaves float32: the head
        elif "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(1)  # on small models a second thread costs more than it brings
        device = launched.device if launched.device.type != "cpu" else torch.device("cpu")
        process = cls(device, launched.process_index, launched.num_processes)
        if process.size > 1:
            atexit.register(process.leave)
        process.check_sharding()
        return process

    def leave(self) -> None:
        """Give up the process groups: a thread of theirs that lives on while Python ends can abort the process."""
        self._objects = None
        # What was sharded holds on to a group: a model through its own cycles, and torch's memory of operators.
        gc.collect()
        getattr(debug, "_clear_fast_path_sharding_prop_cache", lambda: None)()  # not in every torch
        dist.destroy_process_group()

    def start_tracker(self, name: str, folder: Path, settings: Mapping[str, object]) -> None:
        """Hand what is tracked from now on to one of Accelerate's trackers, `tensorboard` or `wandb`, in `folder`.

        Raises:
            ValueError: W&B does not begin, without a login for example.
        """
        self._tracking = Accelerator(cpu=self.device.type == "cpu", log_with=name, project_dir=folder)
        simple = {key: value if isinstance(value, int | float | str) else str(value) for key, value in settings.items()}
        self._with_axis = set()
        try:
            self._tracking.init_trackers(TRACKED_PROJECT, config=simple, init_kwargs={"wandb": {"dir": str(folder)}})
        except Exception as error:
            if not type(error).__module__.startswith("wandb"):
                raise
            raise ValueError(
                f"--tracker wandb cannot begin ({error}); do `wandb login`, or set WANDB_MODE=offline to keep its files"
            ) from error

    def track(self, stage: str, values: Mapping[str, float], step: int) -> None:
        """Hand a step's metrics to the tracker, where there is one, under names that begin with the stage's."""
        if self._tracking is None or not self.is_main:
            return
        numbers = {f"{stage}/{name}": value for name, value in values.items()}
        (tracker,) = self._tracking.trackers
        if tracker.name != "wandb":
            tracker.log(numbers, step=step)
            return
        # W&B ignores a step below the last one, and each stage begins with 1: there it is a field, the stage's axis.
        if stage not in self._with_axis:
            tracker.tracker.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
            self._with_axis.add(stage)
        tracker.log({**numbers, f"{stage}/step": step})

    def end_tracker(self) -> None:
        """Write out what the tracker still holds."""
        if self._tracking is not None:
            for tracker in self._tracking.trackers:  # `end_training` would give up the process groups too
                tracker.finish()
            self._tracking = None

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and speaks for all."""
        return self.rank == 0

    @property
    def rollout_dtype(self) -> torch.dtype:
        """Table 6: rollouts in bfloat16; on a CPU float32, which is faster there and gives the same bytes each time."""
        return torch.float32 if self.device.type == "cpu" else torch.bfloat16

    def on_main(self, work: Callable[[], Result]) -> Result:
        """Do it in the main process alone, while the others wait; every process gets what it returned.

        Raises:
            Whatever the work did, in the main process; the others then end with it.
        """
        if self.size == 1:
            return work()
        outcome: list = [None]
        error: BaseException | None = None
        if self.is_main:
            try:
                outcome = [(True, work())]
            except BaseException as caught:  # whatever it is, the others wait for word
                outcome, error = [(False, None)], caught
        dist.broadcast_object_list(outcome, group=self._objects)
        worked, result = outcome[0]
        if error is not None:
            raise error
        if not worked:
            raise SystemExit(2)  # the main process says why
        return result

    def gather(self, value: Result) -> list[Result]:
        """What each process has, in the order of ranks, in every process."""
        if self.size == 1:
            return [value]
        values: list = [None] * self.size
        dist.all_gather_object(values, value, group=self._objects)
        return values

    def merge(self, share: Share, results: Sequence[Result]) -> list[Result]:
        """The inverse of `Share.of`: every process gets the results of all shares, in the order of the whole list."""
        parts = dict(reversed(self.gather((share.index, list(results)))))
        total = sum(len(part) for part in parts.values())
        return [parts[at % share.count][at // share.count] for at in range(total)]

    def total(self, values: dict[str, float]) -> dict[str, float]:
        """Each number summed over the processes, in the order of ranks."""
        everyones = self.gather(values)
        return {name: sum(other[name] for other in everyones) for name in values}

    def shard(self, root: nn.Module, layers: Sequence[nn.Module]) -> None:
        """FSDP2 in place: each layer a unit, and the root with all the rest; nothing where the process is alone.

        Raises:
            ValueError: a parameter was left whole, or this process holds more than its part.
        """
        if self.size == 1:
            return
        mesh = init_device_mesh(self.device.type, (self.size,))
        for layer in layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(root, mesh=mesh)
        unshared = [name for name, weight in root.named_parameters() if not _is_shared(weight, self.size)]
        if unshared:
            raise ValueError(f"FSDP left {unshared[:3]} whole in each of {self.size} processes; launch one process")

    def check_sharding(self) -> None:
        """`shard` a small model, so that a launch where it fails does so now and not at the first training stage.

        Raises:
            ValueError: as `shard` does.
        """
        # Rows that can be cut evenly and rows that cannot; `skip_init` draws no random numbers.
        even, uneven = 2 * self.size, 2 * self.size + 1
        layers = [skip_init(nn.Linear, 2, even), skip_init(nn.Linear, even, uneven)]
        self.shard(nn.Sequential(*layers).to(self.device), layers)


def _is_shared(weight: nn.Parameter, size: int) -> bool:
    """Whether this process holds one of `size` parts of the weight's rows, of which some may be a row longer."""
    return isinstance(weight, DTensor) and weight.to_local().shape[0] <= math.ceil(weight.shape[0] / size)


def groups_wait() -> bool:
    """Whether giving up the process groups waits for the others. On GPUs it does: NCCL finishes what is under way."""
    return torch.cuda.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def fail(code: int, why: str = "") -> int:
    """The exit code of a process that failed; among several on GPUs it ends here.

    The others never finish what they do with this one, and `leave`, as Python ends, would wait for that. A process that
    is gone is seen by the launcher, which ends the others.
    """
    if groups_wait():
        try:
            print(why, end="", file=sys.stderr, flush=True)
            sys.stdout.flush()
        finally:
            os._exit(code)
    return code


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A sharded tensor put together, every process taking part; any other tensor as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def sharded_as(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A whole tensor, the same in every process, cut up as `like` is; the inverse of `whole`."""
    if isinstance(like, DTensor) and tensor.shape == like.shape:
        return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
    return tensor


def check_tracker(name: str) -> None:
    """Raises ValueError where a tracker's package is not installed; Accelerate would pass over it in silence."""
    if find_spec(name) is None:
        raise ValueError(f"--tracker {name} needs the package {name}: pip install '.[trackers]'")


def check_launch(environment: Mapping[str, str], size: int, wanted: int | None) -> None:
    """Launchers that start fewer processes than they were asked for say nothing. We do.

    Raises:
        ValueError: `size` is not what the launcher's own variables or `wanted` say.
    """
    announced = environment.get("WORLD_SIZE")
    if announced is not None and int(announced) != size:
        raise ValueError(
            f"the launcher announced {announced} processes, and each of them finds {size}; they would work side by "
            f"side unawares: launch with `torchrun --nproc-per-node {announced} run_paper.py`"
        )
    if announced is None and "MASTER_ADDR" in environment:
        raise ValueError(
            "the launcher was asked for several processes and started one (`accelerate launch --cpu` does that): "
            "launch with `torchrun --nproc-per-node N run_paper.py`, or with --num_processes 1"
        )
    if wanted is not None and wanted != size:
        raise ValueError(f"--processes is {wanted}, and the launch has {size}; launch {wanted} or change --processes")


def check_plugin(environment: Mapping[str, str]) -> None:
    """What a configuration file of `accelerate launch` may say: it becomes these variables, on a CPU too.

    Raises:
        ValueError: it asks for what this project would not do.
    """
    precision = environment.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision not in ("no", "bf16"):
        raise ValueError(f"mixed_precision is {precision!r}; this project computes in bf16 on a GPU: say so, or `no`")
    if environment.get("ACCELERATE_USE_DEEPSPEED") == "true" or environment.get("ACCELERATE_USE_MEGATRON_LM") == "true":
        raise ValueError("distributed_type must be FSDP, MULTI_GPU or NO (configs/fsdp.yaml); this project has FSDP2")
    if environment.get("ACCELERATE_USE_FSDP") != "true":
        return
    if environment.get("FSDP_VERSION", "1") != "2":
        raise ValueError("fsdp_version is 1 or not given; this project shards with 2 (configs/fsdp.yaml)")
    for name, wanted, advice in (
        ("FSDP_OFFLOAD_PARAMS", "false", "set it to false"),
        ("FSDP_RESHARD_AFTER_FORWARD", "true", "set it to true"),
        ("FSDP_ACTIVATION_CHECKPOINTING", "false", "set it to false and give --model.activation-checkpointing"),
    ):
        found = environment.get(name, wanted).lower()
        if found != wanted:
            raise ValueError(f"{name.lower()} is {found}, which this project does not do; {advice} (configs/fsdp.yaml)")
