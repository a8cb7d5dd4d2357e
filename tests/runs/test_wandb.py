"""The wandb mirror: the real one offline, and broken ones of every kind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.fakes import fake_epochs, fake_result, fake_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from convnext_study.roadmap import get_roadmap
from convnext_study.runs import wandb
from convnext_study.runs.files import LOG, RESULT, write_json
from convnext_study.runs.records import Epoch
from convnext_study.runs.wandb import mirrored, run_id

RUN = fake_run(get_roadmap("nano").variant("gelu"), epochs=5)
CURVE = fake_epochs(RUN, 97.0)


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key and no settings but ours, wherever the tests run."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for mode in ("offline", "tensorboard"):  # a busy machine is slow to start
        monkeypatch.setitem(wandb.PATIENCE, mode, 60.0)


def log_epochs(folder: Path, epochs: list[Epoch]) -> None:
    with (folder / LOG).open("a") as log:
        log.writelines(json.dumps(line.model_dump()) + "\n" for line in epochs)


def mirror_epochs(
    folder: Path, first: int, last: int, *, finish: bool, mode: str = "offline"
) -> list[str]:
    """Mirror some epochs of RUN as the engine logs them; returns what the user is told."""
    told: list[str] = []
    with mirrored(RUN, folder, mode, told.append):
        log_epochs(folder, CURVE[first - 1 : last])
        if finish:
            write_json(folder / RESULT, fake_result(RUN).model_dump())
    return told


def offline_runs(folder: Path) -> list[Path]:
    return sorted((folder / "wandb").glob("offline-run-*"))


def read_back(folder: Path) -> list[dict[str, Any]]:
    """All records of an offline file, by wandb's own reader."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in lines.splitlines()]


def of_type(records: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [record[name] for record in records if record["type"] == name]


def test_an_offline_run_holds_the_numbers_and_a_resumed_one_goes_on(tmp_path: Path) -> None:
    assert mirror_epochs(tmp_path, 1, 3, finish=False) == []
    assert mirror_epochs(tmp_path, 4, 5, finish=True) == []
    first, second = (read_back(folder) for folder in offline_runs(tmp_path))
    for records, epochs in ((first, CURVE[:3]), (second, CURVE[3:])):
        history = [one["item"] for one in of_type(records, "history")]
        assert [one["_step"] for one in history] == [line.epoch for line in epochs]
        for name in ("loss", "lr", "images_per_s"):
            assert [one[name] for one in history] == [getattr(line, name) for line in epochs]
        for name in ("top1", "val_loss"):
            assert [one[name] for one in history] == [line.metrics[name] for line in epochs]
        (about,) = of_type(records, "run")
        assert about["run_id"] == run_id(RUN)
        assert about["resume"] is True  # so that `wandb sync` goes on where the first ends
        assert (about["run_group"], about["display_name"]) == (RUN.study, RUN.id)
        assert about["project"] == "convnext-study"
        config = about["config"]["update"]
        assert config["recipe"] == RUN.recipe
        assert config["model"]["args"]["width"] == RUN.model.args["width"]
        assert "host" not in about
    assert [one["exit_code"] for one in of_type(first, "exit")] == [1]  # cut short
    assert [one["exit_code"] for one in of_type(second, "exit")] == [0]
    result, summary = fake_result(RUN), dict[str, Any]()
    for one in of_type(second, "summary"):
        summary.update(one["update"])
    assert (summary["top1"], summary["macs"]) == (result.value, result.cost.macs)
    assert set(summary) >= {"val_loss", "params", "seconds"} and "metrics" not in summary
    assert {path.name for path in tmp_path.iterdir()} == {"wandb", "home", LOG, RESULT}


def test_event_files_for_tensorboard_hold_the_same(tmp_path: Path) -> None:
    for first, last in ((1, 3), (4, 5)):
        assert mirror_epochs(tmp_path, first, last, finish=last == 5, mode="tensorboard") == []
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for name in ("loss", "top1"):
        shown = [(one.step, one.tensor_proto.float_val[0]) for one in events.Tensors(name)]
        expected = [(line.epoch, {**line.metrics, "loss": line.loss}[name]) for line in CURVE]
        assert shown == [(step, pytest.approx(value)) for step, value in expected]
    assert "result/top1" in events.Tags()["tensors"]


def test_an_epoch_that_is_trained_again_after_a_kill_is_mirrored_again(tmp_path: Path) -> None:
    """The engine makes the log agree with its checkpoint before it goes on."""
    log_epochs(tmp_path, CURVE[:3])
    told: list[str] = []
    with mirrored(RUN, tmp_path, "offline", told.append):
        (tmp_path / "new").write_text("".join((tmp_path / LOG).read_text().splitlines(True)[:2]))
        (tmp_path / "new").replace(tmp_path / LOG)
        again = CURVE[2].model_copy(update={"seconds": 1.1})
        log_epochs(tmp_path, [again, CURVE[3]])
    (folder,) = offline_runs(tmp_path)
    history = [one["item"] for one in of_type(read_back(folder), "history")]
    assert [(one["_step"], one["seconds"]) for one in history] == [(3, 1.1), (4, 0.9)]
    assert told == []


KILLED = """
import json, sys, os, signal
sys.path[:0] = [{tests!r}]
from pathlib import Path
from support.fakes import fake_epochs, fake_runs
from convnext_study.runs.files import LOG
from convnext_study.runs.wandb import mirrored
run, folder = fake_runs()[0], Path({folder!r})
with mirrored(run, folder, "offline", print):
    for line in fake_epochs(run, 97.0, 2):
        with (folder / LOG).open("a") as log:
            log.write(json.dumps(line.model_dump()) + "\\n")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_training_loses_no_epoch(tmp_path: Path) -> None:
    code = KILLED.format(tests=str(Path(__file__).parents[1]), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 60
    records: list[dict[str, Any]] = []
    while not of_type(records, "exit") and time.monotonic() < deadline:
        time.sleep(0.5)
        folders = offline_runs(tmp_path)
        if folders and any(folders[0].glob("*.wandb")):
            records = read_back(folders[0])
    assert [one["item"]["epoch"] for one in of_type(records, "history")] == [1, 2]
    assert [one["exit_code"] for one in of_type(records, "exit")] == [1]


# Broken in every way: a package of that name in front of the real one.
BROKEN = """
{on_import}
import os, sys, time
class Settings: pass
class Run:
    def __init__(self): self.summary, self.logged = {{}}, 0
    def log(self, values, **how):
        self.logged += 1
        if self.logged == 2: {on_log}
    def finish(self, **how): {on_finish}
def init(**how):
    {on_init}
    return Run()
"""


def break_wandb(monkeypatch: pytest.MonkeyPatch, folder: Path, **how: str) -> None:
    package = folder / "broken" / "wandb"
    package.mkdir(parents=True)
    whole = dict.fromkeys(("on_import", "on_init", "on_log", "on_finish"), "pass")
    (package / "__init__.py").write_text(BROKEN.format(**{**whole, **how}))
    monkeypatch.setenv("PYTHONPATH", f"{package.parent}:{os.environ.get('PYTHONPATH', '')}")


WAYS = {
    "missing": ({"on_import": "raise ModuleNotFoundError('No module named wandb')"}, "imported"),
    "no key": ({"on_init": "raise RuntimeError('no API key')"}, "RuntimeError: no API key"),
    "leaves": ({"on_init": "sys.exit(3)"}, "SystemExit: 3"),
    "network": ({"on_log": "raise OSError('network gone')"}, "OSError: network gone"),
    "stopped": ({"on_log": "raise KeyboardInterrupt"}, "KeyboardInterrupt"),
    "crash": ({"on_log": "os._exit(1)"}, "its process ended"),
    "at the end": ({"on_finish": "raise ValueError('no')"}, "ValueError: no"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_broken_wandb_is_told_once_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    how, reason = WAYS[way]
    break_wandb(monkeypatch, tmp_path, **how)
    told = mirror_epochs(tmp_path, 1, 5, finish=True)
    assert len(told) == 1
    assert told[0].startswith("wandb is off, and training continues without it: ")
    assert reason in told[0]


def test_a_broken_wandb_is_told_while_the_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_wandb(monkeypatch, tmp_path, on_init="raise RuntimeError('no')")
    told: list[str] = []
    with mirrored(RUN, tmp_path, "offline", told.append):
        deadline = time.monotonic() + 60
        while not told and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(told) == 1
        log_epochs(tmp_path, CURVE)
    assert len(told) == 1


@pytest.mark.parametrize("deaf", [False, True])
def test_a_wandb_that_hangs_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaf: bool
) -> None:
    break_wandb(monkeypatch, tmp_path, on_init="time.sleep(40)")
    if deaf:  # and does not even read what it is to do
        (tmp_path / "broken" / "deaf.py").write_text("import time\ntime.sleep(40)\n")
        monkeypatch.setattr(wandb, "__name__", "deaf")
        log_epochs(tmp_path, CURVE * 300)  # more than a pipe takes
    monkeypatch.setitem(wandb.PATIENCE, "offline", 0.2)
    told = mirror_epochs(tmp_path, 1, 5, finish=True)
    assert told == ["wandb takes long to finish (no network?): it keeps trying in the background"]


def test_a_process_that_cannot_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    (told,) = mirror_epochs(tmp_path, 1, 5, finish=True)
    assert told.startswith("wandb is off, and training continues without it: [Errno 2]")


def test_off_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with mirrored(RUN, tmp_path, "off", refuse):
        log_epochs(tmp_path, CURVE)
    assert not (tmp_path / "wandb").exists()


def test_ids_are_stable_and_a_runs_own() -> None:
    same = RUN.model_copy(update={"metadata": {"label": "another label"}})
    assert run_id(same) == run_id(RUN)
    others: list[dict[str, Any]] = [{"seed": 1}, {"study": "another"}, {"data": "cifar10:here"}]
    ids = {run_id(RUN.model_copy(update=change)) for change in others}
    assert len(ids | {run_id(RUN)}) == 4
