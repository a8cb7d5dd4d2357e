"""Defaults of options, from presets and a project's file; and shell completion.

The command line has precedence, then ``--preset``, then the project's file.
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
# These options run code: they are for the command line only, not for a file from elsewhere.
# (A cluster's file names what each job runs first, and its interpreter.)
RUNS_CODE = ("trust", "code", "cluster")
MEASURING = ("eval", "bench", "pack")  # their data is the run's, or their own
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
    """A command's options by name, without dashes: the parameter, and whether it is turned on."""
    return {
        name.removeprefix("--"): (parameter.name or "", name in parameter.opts)
        for parameter in command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--")
    }


def project_defaults(
    commands: Mapping[str, Mapping[str, tuple[str, bool]]], path: Path = Path(PROJECT_FILE)
) -> dict[str, dict[str, Any]]:
    """The defaults in a project's file, for each of the ``commands``, given with their options.

    A top-level value is for all commands that have such an option, except those that measure; a
    table with a command's name is for that one. Raises UserError, one line, also for a key that
    is not an option, or one that runs code.
    """
    if not path.is_file():
        return {}
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable TOML file ({error})") from None
    defaults: dict[str, dict[str, Any]] = {name: {} for name in commands}
    tables = {key: value for key, value in values.items() if isinstance(value, dict)}
    for key, value in values.items():
        if key not in tables:
            targets = [name for name in commands if name not in MEASURING]
            _set(path, defaults, {name: commands[name] for name in targets}, key, value)
    for command, table in tables.items():
        if command not in commands:
            raise UserError(f"{path}: [{command}]{did_you_mean(command, [*commands])}")
        for key, value in table.items():
            _set(path, defaults, {command: commands[command]}, key, value)
    return defaults


def _set(
    path: Path,
    defaults: dict[str, dict[str, Any]],
    commands: Mapping[str, Mapping[str, tuple[str, bool]]],
    key: str,
    value: Any,
) -> None:
    name = key.removeprefix("--").replace("_", "-")
    if name in RUNS_CODE:
        raise UserError(f"{path}: {key}: can run code; pass it on the command line instead")
    accepting = [command for command, options in commands.items() if name in options]
    if not accepting or not isinstance(value, str | int | float | bool):
        raise UserError(f"{path}: {key}: not an option; use an option name from a command's --help")
    if value == "":
        raise UserError(f"{path}: {key}: the value is empty; give one, or leave it out")
    if isinstance(value, str) and any(word.strip().endswith(".py") for word in value.split(",")):
        raise UserError(f"{path}: {key}: names a Python file; pass it on the command line instead")
    for command in accepting:
        parameter, turns_on = commands[command][name]
        if not turns_on and not isinstance(value, bool):
            raise UserError(f"{path}: {key}: must be true or false")
        defaults[command][parameter] = value if turns_on else not value


def complete_step(ctx: typer.Context, incomplete: str) -> list[str]:
    """Rows of the road map that was named on the command line so far."""
    road = ROADMAPS.get(str(ctx.params.get("regime") or DEFAULT_REGIME), ROADMAPS[DEFAULT_REGIME])
    return [row.name for row in road.variants() if row.name.startswith(incomplete)]


def _completing(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """A function that completes a word to one of these names."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return complete


def _studies() -> Iterable[str]:
    from convnext_study.experiments.study_file import named_studies

    return named_studies()


complete_regime, complete_preset = _completing(lambda: ROADMAPS), _completing(lambda: PRESETS)
complete_study = _completing(_studies)
# Sources that need a path end with a colon.
complete_data = _completing(
    lambda: [f"{name}:" if source.needs_path else name for name, source in SOURCES.items()]
)
