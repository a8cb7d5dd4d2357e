"""What no command can use is refused in one line with code 2, before anything is begun."""

from __future__ import annotations

import inspect
import typing
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import pytest
from support.command import Command

from convnext_study import cli
from convnext_study.cli.options import StudyOptions

NEEDED = {"study": ["pairs"], "train": ["gelu"], "show": ["gelu"], "eval": ["x"], "export": ["x"]}
NEEDED |= {"report": ["x"], "power": ["--effect", "1"]}
SIGNED = {("power", "effect"), ("power", "power"), ("power", "alpha")}  # checked by the statistics


def numbers() -> list[tuple[str, str]]:
    """Each command with the name of each of its options that is a number; those that all
    trainings have once."""
    found = []
    shared = {field.name for field in fields(StudyOptions)}
    for name, (command, _) in cli.COMMANDS.items():
        for one in inspect.signature(command, eval_str=True).parameters.values():
            kind = one.annotation
            kind = typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind
            known = name in ("roadmap", "study") and one.name in shared
            if {int, float} & {kind, *typing.get_args(kind)} and not known:
                found.append((name, one.name))
    return found


def refused(command: Command, *words: str) -> str:
    code, _, errors = command(*words)
    *before, last = errors.splitlines()
    assert code == 2 and (not before or "--dry-run" in words), (words, errors)
    assert last.startswith("convnext-study: ")
    assert len(last) < 400
    return last


def test_the_options_are_found() -> None:
    assert {name for name, _ in numbers()} >= {"train", "study", "bench", "eval", "report"}
    assert {("train", "mfu"), ("study", "permutations"), ("cost", "image_size")} <= {*numbers()}


@pytest.mark.parametrize(("name", "option"), numbers())
def test_no_option_takes_what_is_no_such_number(name: str, option: str, command: Command) -> None:
    for text in ("nan", "inf", "-inf", "1" + "0" * 30, "1" + "0" * 400, "-1", "x", ""):
        if (name, option) in SIGNED and text[:1] in ("-", "1") and "inf" not in text:
            continue
        flag = f"--{option.replace('_', '-')}"
        assert flag in refused(command, name, *NEEDED.get(name, []), f"{flag}={text}")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("show gellu", "did you mean gelu?"),
        ("show separate_downsampling --image-size 20", "image size: 20 is too small"),
        ("steps --regime x", "no such road map"),
        ("steps --regime", "'--regime' requires an argument"),
        ("stps", "No such command 'stps'. Did you mean 'steps'?; see"),
        ("cost --verfy", "--verify"),
        ("cost --study pairs", "has no networks to count"),
        ("train", "Missing argument 'step'; see"),
        ("train gelu --epochs 0", "Invalid value for '--epochs'"),
        ("train gelu --device tpu", "device: 'tpu' is not available on this machine; use"),
        ("train gelu --device cpu:9", "use cpu"),
        ("train gelu --wandb maybe", "wandb: 'maybe'; use one of off, offline, online"),
        ("train gelu --corrupt-images no", "'no' is not one of 'stop', 'skip'"),
        ("train gelu --out /proc/nowhere", "/proc/nowhere"),
        ("train gelu --data digits --json", "add --dry-run"),
        ("train gelu --processes 2", "remove one of them"),
        ("train gelu --cluster site.toml", "remove one of them"),
        (
            "train gelu --no-wait",
            "--no-wait: does not apply to --launcher local; remove one of them",
        ),
        ("train gelu --launcher pbs", "launcher: 'pbs'; use local, torchrun or slurm"),
        ("train gelu --launcher torchrun --processes 7", "64 cannot be divided among"),
        ("roadmap --dry-run --launcher slurm", "cluster file with --cluster FILE"),
        ("roadmap --dry-run --data floder:x", "unknown kind; did you mean folder?"),
        ("roadmap --dry-run --data timm:torch/cifar10 --download", "a dry run downloads nothing"),
        ("roadmap --dry-run --gpu a10", "did you mean a100?"),
        ("roadmap --dry-run --launcher torchrun --processes 3", "64 cannot be divided among"),
        ("roadmap --data digit-canvas", "has a class for every pixel, but a class for every image"),
        ("study pairs --data mpii:PATH", "has joints, but a class for every image is needed"),
        ("study pruning --data mpii:PATH", "has joints, but a class for every image is needed"),
        ("study multipath --data digit-canvas", "has a class for every pixel, but a class for"),
        ("roadmap --steps nope", "no such step"),
        ("roadmap --steps ,", "contains no step"),
        ("roadmap --seeds none", "seeds: 'none'"),
        ("roadmap --data folder:/nowhere/at/all", "/nowhere/at/all: no such folder"),
        ("roadmap --recipe moderne", "did you mean modern"),
        ("roadmap --recipe=", "recipe"),
        ("study anytime --networks ,", "contains no name"),
        ("study pairs --match-macs 1e300", "match-macs"),
        ("study pairs --permutations 3", "permutations: 3; use an even number"),
        ("study none.py", "none.py: cannot be read"),
        (
            "study leave_one_uot",
            "neither a file nor the name of a study; did you mean leave_one_out?",
        ),
        ("bench --out /proc/nowhere", "/proc/nowhere: cannot be written"),
        ("bench --parts anytime --image-size 99999999999x3", "HEIGHTxWIDTH"),
        ("bench --parts anytime --image-size 64", "HEIGHTxWIDTH"),
        ("bench --parts anytime --image-size 0x32", "HEIGHTxWIDTH"),
        ("bench --parts ,", "use one of networks"),
        ("bench --parts pipeline --networks hrnet_w48", "--parts anytime"),
        ("bench --parts anytime --networks hrnet_digit --quick", "did you mean"),
        ("bench --parts multipath --networks smal --quick", "did you mean"),
        ("bench --parts multipath --image-size 64x64 --quick", "32x32"),
        ("eval .", "contains no runs; name the folder of one run"),
        ("eval roadmap_nano_separate_downsampling --data digits --image-size 4", "4"),
    ],
)
def test_a_bad_request_is_one_line(
    words: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    monkeypatch.chdir(tmp_path)
    assert says in refused(command, *words.split())


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (("roadmap", "--dry-run", "--data", ""), "--data"),
        (("train", "gelu", "--dry-run", "--out="), "--out"),
        (("cost", "--regime", ""), "--regime"),
        (("runs", "list", ""), "argument 3"),
        (("",), "argument 1"),
    ],
)
def test_an_empty_value_is_not_the_default(
    words: tuple[str, ...], where: str, command: Command
) -> None:
    assert f" {where}: the value is empty" in refused(command, *words)
