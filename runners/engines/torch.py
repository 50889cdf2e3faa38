"""torch, on CUDA or on the CPU: runs the `torch.export` program that the import step left, never a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from runners.engines.errors import EngineError

_DTYPE: Final = {"bf16": torch.bfloat16, "f16": torch.float16}


class TorchEngine:
    """An exported program as a module, under autocast where the precision is a reduced one."""

    name = "torch"

    def __init__(
        self, program: Path, precision: Literal["auto", "f32", "bf16", "f16"], *, cuda: bool, threads: int
    ) -> None:
        """Load `program` onto the GPU (`cuda`) or the CPU. threads: per call on a CPU; 0 = all cores.

        `auto` is f16 on CUDA and f32 on a CPU. Raises EngineError for f16 on a CPU, where torch has no fast kernels.
        """
        if precision == "auto":
            precision = "f16" if cuda else "f32"
        if precision == "f16" and not cuda:
            raise EngineError("torch has no fast f16 on a CPU: set ENRICHMENT_PRECISION to auto, f32 or bf16")
        self.precision = precision
        self._device = torch.device("cuda" if cuda else "cpu")
        if threads:
            torch.set_num_threads(threads)
        self._module = torch.export.load(program).module().to(self._device)

    @torch.inference_mode()
    def run(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        """See Engine.run."""
        images = torch.from_numpy(batch).to(self._device)
        dtype = _DTYPE.get(self.precision)
        with torch.autocast(self._device.type, dtype=dtype, enabled=dtype is not None):
            outputs = self._module(images)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return tuple(output.float().cpu().numpy() for output in outputs)
