"""Accelerate: the device and the processes of the launch. The only file that imports it."""

import os

import torch
from accelerate import Accelerator


class Process:
    """What the run knows of the machine it was launched on."""

    def __init__(self) -> None:
        self._accelerator = Accelerator()
        if self._accelerator.num_processes != 1:
            raise ValueError(
                f"this version runs in one process, got {self._accelerator.num_processes}; "
                "launch it with `accelerate launch --num_processes 1 run_paper.py`"
            )
        self.device: torch.device = self._accelerator.device
        if self.device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(1)  # on small models a second thread costs more than it brings

    @property
    def rollout_dtype(self) -> torch.dtype:
        """Table 6: rollouts in bfloat16; on a CPU float32, which is faster there and gives the same bytes each time."""
        return torch.float32 if self.device.type == "cpu" else torch.bfloat16
