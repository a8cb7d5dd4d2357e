"""Where defaults of options come from: presets by name, and a project's file; words to complete.

What stands on the command line comes first, then ``--preset``, then the project's file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from convnext_study.data.sources import SOURCES
from convnext_study.errors import UserError, did_you_mean
from convnext_study.roadmap import DEFAULT_REGIME, ROADMAPS

if TYPE_CHECKING:
    from click import Command

PROJECT_FILE = "convnext-study.toml"
# What runs code: only who types it may ask for it, not a file in a folder from elsewhere.
# (A cluster's file says what each job runs first, and with which interpreter.)
RUNS_CODE = ("trust", "code", "cluster")
MEASURING = ("eval", "bench", "pack")  # whose data is the run's, or their own
PRESETS: dict[str, dict[str, Any]] = {
    "laptop": {"regime": "nano", "device": "cpu", "seeds": "3"},
    "gpu": {"precision": "bf16", "tf32": True, "cudnn_benchmark": True},
    "cluster": {"regime": "t", "precision": "bf16", "seeds": "3", "launcher": "slurm"},
}


def apply_preset(ctx: typer.Context, name: str | None) -> str | None:
    """Make a preset's values the command's defaults. Raises UserError for an unknown one."""
    if name is not None:
        if name not in PRESETS:
            raise UserError(f"--preset: {name!r}{did_you_mean(name, [*PRESETS])}")
        ctx.default_map = {**(ctx.default_map or {}), **PRESETS[name]}
    return name


def options_of(command: Command) -> dict[str, tuple[str, bool]]:
    """A command's options by their names without dashes: the parameter, and whether it is on."""
    return {
        name.removeprefix("--"): (one.name or "", name in one.opts)
        for one in command.params
        for name in (*one.opts, *one.secondary_opts)
        if name.startswith("--") and one.name not in RUNS_CODE
    }


def project_defaults(
    commands: Mapping[str, Mapping[str, tuple[str, bool]]], path: Path = Path(PROJECT_FILE)
) -> dict[str, dict[str, Any]]:
    """The defaults of every command, of those given with their options, by a project's file.

    A value at the file's top is for all commands that have such an option, but those that measure;
    a table named as a command is for that one. Raises UserError, one line, also for a key that is
    no option, or one that runs code.
    """
    if not path.is_file():
        return {}
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a TOML file that can be read ({error})") from None
    found: dict[str, dict[str, Any]] = {name: {} for name in commands}
    own = {key: value for key, value in given.items() if isinstance(value, dict)}
    for key, value in given.items():
        if key not in own:
            where = [name for name in commands if name not in MEASURING]
            _set(path, found, {name: commands[name] for name in where}, key, value)
    for command, values in own.items():
        if command not in commands:
            raise UserError(f"{path}: [{command}]{did_you_mean(command, [*commands])}")
        for key, value in values.items():
            _set(path, found, {command: commands[command]}, key, value)
    return found


def _set(
    path: Path,
    found: dict[str, dict[str, Any]],
    commands: Mapping[str, Mapping[str, tuple[str, bool]]],
    key: str,
    value: Any,
) -> None:
    name = key.removeprefix("--").replace("_", "-")
    where = [command for command, options in commands.items() if name in options]
    if not where or not isinstance(value, str | int | float | bool):
        raise UserError(f"{path}: {key}: no option takes this; name one of a command's --help")
    if value == "":
        raise UserError(f"{path}: {key}: the value is empty; give one, or leave it out")
    if isinstance(value, str) and any(one.strip().endswith(".py") for one in value.split(",")):
        raise UserError(f"{path}: {key}: names a Python file; give it on the command line")
    for command in where:
        parameter, on = commands[command][name]
        if not on and not isinstance(value, bool):
            raise UserError(f"{path}: {key}: is true or false")
        found[command][parameter] = value if on else not value


def complete_step(ctx: typer.Context, incomplete: str) -> list[str]:
    """Rows of the road map that the command has been given so far."""
    road = ROADMAPS.get(str(ctx.params.get("regime") or DEFAULT_REGIME), ROADMAPS[DEFAULT_REGIME])
    return [one.name for one in road.variants() if one.name.startswith(incomplete)]


def _completing(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """What completes a word to one of these names."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return complete


def _studies() -> Iterable[str]:
    from convnext_study.experiments.study_file import named_studies

    return named_studies()


complete_regime, complete_preset = _completing(lambda: ROADMAPS), _completing(lambda: PRESETS)
complete_study = _completing(_studies)
# Those that need a path end with a colon.
complete_data = _completing(
    lambda: [f"{name}:" if one.needs_path else name for name, one in SOURCES.items()]
)
