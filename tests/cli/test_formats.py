"""What --json prints: keys and units, as docs/formats.md has them. Presets, a project's file, words
to complete, and ``runs``."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.command import Command
from support.fakes import fake_run, write_run

from convnext_study.cli.defaults import project_defaults
from convnext_study.cost import closed_form
from convnext_study.errors import UserError
from convnext_study.roadmap import get_roadmap
from convnext_study.runs.files import CHECKPOINT, PREVIOUS
from convnext_study.training import checkpoint_file

NANO = get_roadmap("nano")
GELU = closed_form(NANO.variant("gelu").spec, 64, 10)
ROW = ("step", "label", "section", "adopted", "recipe", "overrides", "model")
KEYS: dict[str, dict[str, Any]] = {
    "steps": {"regime": "nano", "steps": ROW},
    "show gelu": {
        "regime": "nano",
        "step": "gelu",
        "label": "ReLU → GELU",
        "parent": "kernel_7",
        "recipe": "modern",
        "overrides": {"activation": "gelu"},
        "network": NANO.variant("gelu").spec.to_dict(),
        "image_size": 64,
        "cost": vars(GELU),
        "parent_cost": vars(closed_form(NANO.variant("kernel_7").spec, 64, 10)),
    },
    "cost": {
        "networks": (
            *("regime", "step", "label", "macs", "params", "activations"),
            *("paper_gflops", "paper_top1", "matches_paper", "erratum", "model"),
        )
    },
}


@pytest.mark.parametrize("words", KEYS)
def test_keys_are_frozen(words: str, command: Command) -> None:
    found = json.loads(command(*words.split(), "--json").out)
    assert found.pop("schema") == 1
    assert found.keys() == KEYS[words].keys()
    for key, value in KEYS[words].items():
        if isinstance(value, tuple):  # the keys of each row
            assert all(tuple(row) == value for row in found[key])
        else:
            assert found[key] == json.loads(json.dumps(value))


@pytest.mark.usefixtures("no_figures")
def test_the_report_in_plain_values(tmp_path: Path, command: Command) -> None:
    for seed in (0, 1):
        write_run(tmp_path, fake_run(NANO.variant("gelu"), seed))
    found = json.loads(command("report", str(tmp_path), "--json").out)
    assert found["schema"] == 1
    (row,) = found["studies"]["roadmap-nano"]
    assert (row["name"], row["n"]) == ("gelu", 2)
    assert all(Path(path).exists() for path in found["files"])


def test_finished_runs_lose_what_only_a_resume_needs(
    tmp_path: Path, command: Command, trains_here: None
) -> None:
    words = ["--data", "digits", "--epochs", "2", "--batch-size", "128", "--image-size", "32"]
    assert command("train", "gelu", *words, "--out", str(tmp_path)).code == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert (run / PREVIOUS).exists()
    weights = checkpoint_file.read(run / CHECKPOINT)["model"]
    (before,) = json.loads(command("runs", "list", str(tmp_path), "--json").out)["runs"]
    assert (before["state"], before["epoch"], before["metric"]) == ("done", 2, "top1")
    assert command("runs", "clean", str(tmp_path), "--dry-run").code == 0
    assert (run / PREVIOUS).exists()
    save = checkpoint_file.save

    def save_alone(folder: Path, *rest: Any) -> None:
        assert not (run / PREVIOUS).exists()  # a full disk has no room for three
        save(folder, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_file, "save", save_alone)
        assert command("runs", "clean", str(tmp_path)).code == 0
    (after,) = json.loads(command("runs", "list", str(tmp_path), "--json").out)["runs"]
    assert after["bytes"] < before["bytes"] / 3
    state = checkpoint_file.read(run / CHECKPOINT)
    assert "optimizer" not in state and not (run / PREVIOUS).exists()
    # Where the newest is not there, or damaged, the one before it is all that is left.
    (run / CHECKPOINT).rename(run / PREVIOUS)
    assert command("runs", "clean", str(tmp_path)).code == 0 and (run / PREVIOUS).exists()
    content = (run / PREVIOUS).read_bytes()
    (run / CHECKPOINT).write_bytes(content[:-1])
    assert "damaged" in command("runs", "clean", str(tmp_path)).errors
    assert (run / PREVIOUS).read_bytes() == content
    (run / PREVIOUS).rename(run / CHECKPOINT)
    assert all((state["model"][name] == weight).all() for name, weight in weights.items())
    # A result that is lost is written again from what is left.
    result = (run / "result.json").read_text()
    (run / "result.json").unlink()
    assert command("train", "gelu", *words, "--out", str(tmp_path)).code == 0
    again = json.loads((run / "result.json").read_text())
    assert again["metrics"]["top1"]["value"] == json.loads(result)["metrics"]["top1"]["value"]
    assert command("runs", "list", str(tmp_path / "none")).code == 2


def test_a_projects_file_and_presets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "convnext-study.toml"
    file.write_text('data = "digits"\n[train]\nepochs = 7\nbatch-size = 32\n')

    def planned(*words: str) -> tuple[int, int, str, str, int]:
        plan = json.loads(command("train", "gelu", "--dry-run", "--json", *words).out)
        run = plan["runs"][0]
        batch = run["global_batch_size"]
        return run["epochs"], batch, plan["data"][0]["uri"], run["precision"], len(plan["runs"])

    assert planned() == (7, 32, "digits", "float32", 1)
    assert planned("--epochs", "2", "--preset", "laptop") == (2, 32, "digits", "float32", 3)
    assert planned("--preset", "laptop", "--seeds", "2")[-1] == 2
    assert "did you mean laptop" in command("train", "gelu", "--preset", "laptp").errors
    file.write_text("[train]\nmirror = 'tensorboard'\nno-tf32 = true\n")
    assert command("train", "gelu", "--dry-run").code == 0
    for text, says in (
        ("epoch = 3", "epoch"),
        ("[eval]\ntrust = true", "can run code"),
        ("[export]\ncode = 'net.py'", "can run code"),
        ("[study]\nfile = 'net.py'", "not an option"),
        ("launcher = 'slurm'\ncluster = 'site.toml'", "can run code"),
        ("data = ''", "the value is empty"),
        ("extra-steps = 'grn,net.py'", "names a Python file"),
        ("[tran]\nx = 1", "did you mean train"),
        ("=", "TOML"),
    ):
        file.write_text(text)
        code, _, errors = command("train", "gelu", "--dry-run")
        assert (code, errors.count("\n")) == (2, 1)
        assert says in errors
    for words in (["--help"], ["--version"], ["train", "--help"]):
        assert command(*words).code == 0
    with pytest.raises(UserError, match="not an option"):
        options = {"train": {"seeds": ("seeds", True)}}
        project_defaults(options, _written(tmp_path / "x.toml", "seeds = [1]"))


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("convnext-study train ge", {"gelu"}),
        ("convnext-study study pa", {"pairs"}),
        ("convnext-study roadmap --data cif", {"cifar10:", "cifar100:"}),
        ("convnext-study roadmap --preset l", {"laptop"}),
    ],
)
def test_names_are_completed(line: str, words: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "convnext_study"],
        env={
            **os.environ,
            "_CONVNEXT_STUDY_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split()) - 1),
        },
        capture_output=True,
        text=True,
    )
    assert set(done.stdout.split()) == words, done.stderr


def test_studies_are_listed(command: Command) -> None:
    code, out, _ = command("study")
    assert code == 0
    assert {"pairs", "pruning", "leave_one_out"} <= {line.split()[0] for line in out.splitlines()}
