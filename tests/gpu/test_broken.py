"""A run that breaks its CUDA context fails alone: those after it are trained all the same."""

from __future__ import annotations

from pathlib import Path

from gpu.device import DEVICE, on_device
from support.runs import make_tiny_run

from convnext_study.imports import file_digest
from convnext_study.launchers.graph import Job
from convnext_study.launchers.local import Pool
from convnext_study.models.builders import FILE_BUILDER
from convnext_study.runs.records import ModelRef
from convnext_study.training.runtime import Runtime

pytestmark = on_device
# An index out of range is an assertion on the GPU, after which nothing there can be used.
BREAKS = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(3, 10)

    def forward(self, x):
        index = torch.full((4,), 99, device=x.device)
        return self.fc(x.mean((2, 3))) + torch.zeros(3, device=x.device)[index].sum()

def net(args, **kwargs):
    return Net()
"""


def test_the_runs_after_a_broken_one(tmp_path: Path) -> None:
    file = tmp_path / "breaks.py"
    file.write_text(BREAKS)
    about = {"file": str(file), "function": "net", "sha256": file_digest(file), "args": {}}
    model = ModelRef(builder=FILE_BUILDER, args=about)
    bad = make_tiny_run().model_copy(update={"name": "bad", "model": model})
    good = make_tiny_run().model_copy(update={"name": "good"})
    jobs = [Job(run, tmp_path / run.id, Runtime(device=DEVICE)) for run in (bad, good)]
    ended = {one.run.name: one for one in Pool(1).run(jobs)}
    assert (ended["bad"].status, ended["good"].status) == ("failed", "done"), ended
    assert "\n" not in ended["bad"].reason
