"""Every option that takes a number: what is no number in its range is refused where it is read."""

from __future__ import annotations

import inspect
import sys
import typing
from pathlib import Path
from typing import Annotated

import pytest

from convnext_study import cli

NEEDED = {"study": ["pairs"], "train": ["gelu"], "show": ["gelu"], "eval": ["x"], "export": ["x"]}
NEEDED |= {"report": ["x"], "power": ["--effect", "1"]}
SIGNED = {("power", "effect"), ("power", "power"), ("power", "alpha")}  # checked by the statistics


def numbers() -> list[tuple[str, str]]:
    """Each command with the name of each of its options that is a number."""
    found = []
    for about in cli.app.registered_commands:
        assert about.callback is not None
        command = about.name or about.callback.__name__
        for one in inspect.signature(about.callback, eval_str=True).parameters.values():
            kind = one.annotation
            kind = typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind
            if {int, float} & {kind, *typing.get_args(kind)}:
                found.append((command, one.name))
    return found


def test_the_options_are_found() -> None:
    assert {command for command, _ in numbers()} >= {"train", "roadmap", "study", "bench", "eval"}
    assert {("train", "mfu"), ("study", "permutations"), ("cost", "image_size")} <= {*numbers()}


@pytest.mark.parametrize(("command", "option"), numbers())
def test_no_option_takes_what_is_no_such_number(
    command: str, option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ("nan", "inf", "-inf", "1" + "0" * 30, "1" + "0" * 400, "-1", "x", ""):
        if (command, option) in SIGNED and text[:1] in ("-", "1") and "inf" not in text:
            continue
        name = f"--{option.replace('_', '-')}"
        words = ["convnext-study", command, *NEEDED.get(command, []), f"{name}={text}"]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        errors = capsys.readouterr().err
        assert (ended.value.code, len(errors.splitlines())) == (2, 1), (text, errors)
        assert name in errors


@pytest.mark.parametrize(
    "words",
    [
        ["bench", "--parts", "anytime", "--image-size", "99999999999x3"],
        ["bench", "--parts", "anytime", "--image-size", "0x32"],
        ["bench", "--parts", "anytime", "--image-size", "x"],
        ["bench", "--parts", ","],
        ["roadmap", "--steps", ""],
        ["roadmap", "--recipe", ""],
        ["study", "anytime", "--networks", ","],
        ["train", "gelu", "--device", "cpu:9"],
        ["train", "gelu", "--processes", "2"],
        ["train", "gelu", "--cluster", "site.toml"],
        ["train", "gelu", "--no-wait"],
        ["eval", "roadmap_nano_separate_downsampling", "--data", "digits", "--image-size", "4"],
        ["study", "pairs", "--match-macs", "1e300"],
        ["train", "gelu", "--launcher", "torchrun", "--processes", "7"],
    ],
)
def test_no_command_takes_what_it_cannot_use(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["convnext-study", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    errors = capsys.readouterr().err
    assert (ended.value.code, len(errors.splitlines())) == (2, 1), errors
    assert len(errors) < 400
