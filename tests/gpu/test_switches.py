"""Every switch of the command line once; and a run that breaks its CUDA context fails alone."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
from gpu.device import DEVICE, on_device
from support.runs import make_tiny_run

from convnext_study.imports import file_digest
from convnext_study.launchers.graph import Job
from convnext_study.launchers.local import Pool
from convnext_study.models.builders import FILE_BUILDER
from convnext_study.runs import records
from convnext_study.runs.records import ModelRef, Record
from convnext_study.training.runtime import Runtime

pytestmark = on_device
LAST = "separate_downsampling"
SWITCHES = {
    "plain": (LAST,),
    "BatchNorm": ("depthwise_conv",),
    "bf16": (LAST, "--precision", "bf16"),
    "fp16, BatchNorm": ("kernel_7", "--precision", "fp16"),
    "fp16, LayerNorm": ("layer_norm", "--precision", "fp16"),
    "channels first": (LAST, "--channels-first"),
    "recomputed": ("kernel_7", "--grad-checkpointing"),
    "pieces": (LAST, "--micro-batch-size", "16"),
    "compiled": (LAST, "--compile", "--precision", "bf16"),
    "deterministic": (LAST, "--deterministic"),
    "TF32": (LAST, "--tf32"),
    "cuDNN's choice": (LAST, "--cudnn-benchmark"),
    "everything": ("kernel_7", "--compile", "--precision", "bf16", "--tf32", "--cudnn-benchmark"),
    "torchrun": (LAST, "--launcher", "torchrun", "--processes", "1"),
}


def study(*arguments: str) -> str:
    """What the command prints, which must end well."""
    done = subprocess.run(
        [sys.executable, "-m", "convnext_study", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f"{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def trained(folder: Path) -> Record:
    (record,) = records.scan(folder)
    assert record.result is not None
    return record


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch(name: str, tmp_path: Path) -> None:
    step, *switches = SWITCHES[name]
    short = ("--device", DEVICE, "--epochs", "2", "--out", str(tmp_path))
    study("train", step, *switches, *short)
    record = trained(tmp_path)
    assert record.result is not None
    assert math.isfinite(record.result.metrics["val_loss"].value)
    assert record.epochs[1].loss < record.epochs[0].loss
    # fp16 finds its scale by steps that it skips.
    assert (record.result.model_dump()["skipped_steps"] == 0) or "fp16" in name
    if DEVICE == "cuda":
        assert record.result.model_dump()["peak_memory"] > 0


def test_several_side_by_side(tmp_path: Path) -> None:
    steps = ("gelu", "layer_norm", "kernel_7", "kernel_9")
    study(
        *("roadmap", "--steps", ",".join(steps), "--jobs", "4"),
        *("--device", DEVICE, "--epochs", "2", "--out", str(tmp_path)),
    )
    assert {record.run.name for record in records.scan(tmp_path) if record.result} == set(steps)
    study("report", str(tmp_path))


def test_what_comes_after_training(tmp_path: Path) -> None:
    """The same command again, evaluation, plain and compiled, and a file for others."""
    train = ("train", "depthwise_conv", "--device", DEVICE, "--epochs", "2", "--out", str(tmp_path))
    study(*train)
    assert "1 done already" in study(*train)
    record = trained(tmp_path)
    assert record.result is not None
    for switches in ((), ("--compile",)):
        told = study("eval", str(record.folder), "--device", DEVICE, *switches)
        assert "precision" in told
    study("export", str(record.folder), "--to", "hf")


def test_the_benchmark(tmp_path: Path) -> None:
    study("bench", "--parts", "networks", "--quick", "--device", DEVICE, "--out", str(tmp_path))
    assert any(tmp_path.iterdir())


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
