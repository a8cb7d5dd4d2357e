"""Processes that read: small parts, kept between epochs, deaf to signals, gone when not needed."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from support.images import make_folder, readers_of
from support.runs import make_tiny_run
from support.training import assert_same

from convnext_study.data import forkserver, open_data, pool
from convnext_study.data.dataset import DatasetPair
from convnext_study.data.loader import Batch, train_batches
from convnext_study.data.pool import PART, Readers
from convnext_study.data.sharding import BatchSharding
from convnext_study.data.workers import Images, Request
from convnext_study.errors import RunFailed
from convnext_study.recipes import MODERN
from convnext_study.runs.files import CHECKPOINT
from convnext_study.runs.log import read_events
from convnext_study.training import checkpoint_file
from convnext_study.training.loop import train
from convnext_study.training.runtime import Runtime

RECIPE = MODERN.replace(global_batch_size=40, image_size=24)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DatasetPair:
    return open_data(f"folder:{make_folder(tmp_path_factory.mktemp('images'), count=60)}")


@pytest.fixture
def readers(data: DatasetPair) -> Iterator[Readers]:
    made = readers_of(data, RECIPE, 2, batch=40)
    yield made
    made.close()


# Seconds that a reader in trouble is waited for: far more than one without takes on a busy machine.
LONG = 60.0


def same(one: Images, other: Images) -> bool:
    equal = torch.equal(one.pixels, other.pixels)
    return equal and (one.labels, one.erased) == (other.labels, other.erased)


def children() -> set[int]:
    return {child.pid for child in multiprocessing.active_children() if child.pid}


def gone(pids: set[int], seconds: float) -> bool:
    """Whether all of them end in that time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        multiprocessing.active_children()  # takes note of those that ended
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.05)
    return False


def test_large_batches_are_made_in_small_parts(
    data: DatasetPair, readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [Request("train", tuple(range(70)), 3), Request("train", (5, 4, 3), 3)]
    alone = readers_of(data, RECIPE)
    sizes: list[int] = []
    honest: Callable[..., Images] = getattr(pool, "join")  # noqa: B009

    def join(parts: list[Images], **how: Any) -> Images:
        sizes.extend(len(part.labels) for part in parts)
        return honest(parts, **how)

    monkeypatch.setattr(pool, "join", join)
    together = list(readers.read(wanted))
    assert sizes == [PART, PART, 6, 3]
    assert len({len(one.pixels) for one in together}) == 2
    for found, expected in zip(together, alone.read(wanted), strict=True):
        assert same(found, expected)
        assert found.pixels.is_contiguous(memory_format=torch.channels_last)
    whole = alone._parts["train"].read(tuple(range(70)), 3)
    assert isinstance(whole, Images)
    assert same(together[0], whole)
    assert len({box.seed for box in whole.erased}) == len(whole.erased) > 5


def test_they_stay_between_epochs_and_resume_exactly(data: DatasetPair, readers: Readers) -> None:
    def epoch(number: int, start: int = 0) -> list[Batch]:
        found = train_batches(
            data, RECIPE, 0, number, start, lambda: readers, BatchSharding(micro_batch_size=20)
        )
        return list(found)

    before = children()
    first = epoch(0)
    mine = children() - before
    assert len(mine) == 2
    (val,) = readers.read([Request("val", (3, 1))])
    assert val.labels == [0, 0]
    unfinished = train_batches(data, RECIPE, 0, 1, 0, lambda: readers)
    next(unfinished)
    second, resumed = epoch(1), epoch(1, start=2)
    assert children() - before == mine  # the same two all along
    fresh = list(train_batches(data, RECIPE, 0, 1, 0, None, BatchSharding(micro_batch_size=20)))
    assert len(first) == len(second) == len(fresh) == 6
    for found, expected in zip(second + resumed, fresh + fresh[4:], strict=True):
        assert torch.equal(found.images, expected.images)
        assert (found.erased, found.step) == (expected.erased, expected.step)
    assert not torch.equal(first[0].images, second[0].images)
    with pytest.raises(RuntimeError, match="dropped when others were requested"):
        list(unfinished)


def begin_late(worker: int) -> None:
    time.sleep(0.5)  # signals come before a reader can say that it ignores them
    pool._begin(worker)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signals_to_readers_are_ignored(
    readers: Readers, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", LONG)
    monkeypatch.setattr(pool, "_begin", begin_late)
    before = children()
    stream = readers.read([Request("train", (place,)) for place in range(40)])
    mine: set[int] = set()
    honest_started = readers._started

    def started(requests: list[Request]) -> Any:
        iterator = honest_started(requests)
        mine.update(children() - before)
        for pid in mine:
            os.kill(pid, number)
        return iterator

    monkeypatch.setattr(readers, "_started", started)
    assert next(stream).labels == [0]
    assert len(mine) == 2
    for pid in mine:
        os.kill(pid, number)
    assert len(list(stream)) == 39
    assert children() - before == mine
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) & forkserver.STOP_SIGNALS == set()
    began = time.monotonic()
    readers.close()
    assert time.monotonic() - began < LONG / 2, "none had to be waited for"
    assert gone(mine, LONG)


@dataclass
class Hanging:
    """A transform that takes ten minutes for every image but one of this mean."""

    honest: Any
    first: int

    def __call__(self, pixels: torch.Tensor, label: int) -> Any:
        time.sleep(600 if int(pixels.float().mean()) != self.first else 0)
        return self.honest(pixels, label)


def test_one_that_hangs_is_killed(data: DatasetPair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.5)
    made, before = readers_of(data, RECIPE, 1), children()
    part: Any = made._parts["train"]
    part.transform = Hanging(part.transform, int(part.images.pixels(0)[0].float().mean()))
    stream = made.read([Request("train", (0,)), Request("train", (1,))])
    next(stream)
    mine = children() - before
    made.close()
    assert gone(mine, LONG)


SCRIPT = """
    import os, signal, sys, time
    sys.path.append(sys.argv[2])
    from pathlib import Path
    from convnext_study.data import open_data
    from support.images import readers_of
    from convnext_study.data.workers import Request
    from convnext_study.recipes import MODERN
    import multiprocessing
    data = open_data(sys.argv[1])
    readers = readers_of(data, MODERN.replace(image_size=24), 2)
    stream = readers.read([Request("train", tuple(range(60)), epoch) for epoch in range(50)])
    next(stream)
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    {end}
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("sys.exit(3)", 3),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    ],
)
def test_they_end_with_the_training_process(data: DatasetPair, end: str, code: int) -> None:
    script = textwrap.dedent(SCRIPT).format(end=end)
    command = [sys.executable, "-c", script, data.uri, str(Path(__file__).parents[1])]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == code, ended.stderr
    pids = {int(word) for word in ended.stdout.split()}
    assert len(pids) == 2
    assert gone(pids, 12)  # where it could not close them, they look for it every 5 seconds


@pytest.mark.parametrize("when", [1, 4], ids=["first step", "evaluation"])
def test_a_run_whose_readers_are_killed_saves_what_there_is(
    data: DatasetPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: int
) -> None:
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)
    run = make_tiny_run(
        epochs=4, global_batch_size=20, image_size=32, crop="random_resized", mixup=0.8
    ).model_copy(update={"data": data.uri})
    calls, before, folder = iter(range(1, 1000)), children(), tmp_path / "killed"

    def stop() -> bool:
        if next(calls) == when:  # in the middle of a step, and of three to an epoch
            for pid in children() - before:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.5)
        return False

    with pytest.raises(RunFailed, match=r"a data reader ended .*state is saved$"):
        train(run, folder, Runtime(workers=2), stop=stop)
    assert [event["event"] for event in read_events(folder)] == ["started", "failed"]
    assert checkpoint_file.read(folder / CHECKPOINT)["state"]["step"] >= min(when, 3)
    train(run, folder, Runtime(workers=2))
    assert gone(children() - before, 6)
    train(run, tmp_path / "whole")
    assert_same(folder, tmp_path / "whole")


def test_all_that_the_server_imports_is_there() -> None:
    for name in forkserver.TRAININGS:
        import_module(name)


def test_a_process_has_the_environment_of_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server may have been there before, as in a notebook."""
    context = forkserver.context(forkserver.READERS)
    monkeypatch.setenv("OF_A_LATER_CELL", "set")
    with ProcessPoolExecutor(1, context) as processes:
        assert processes.submit(os.getenv, "OF_A_LATER_CELL").result() == "set"


def test_a_forked_process_has_a_server_of_its_own() -> None:
    """It cannot wait for its parent's, and would fail at each start."""
    forkserver.start()
    process = multiprocessing.get_context("fork").Process(target=_starts_another)
    process.start()
    process.join(30)
    assert process.exitcode == 0


def _starts_another() -> None:
    process = forkserver.context().Process(target=os.getpid)
    process.start()
    process.join()
    os._exit(process.exitcode or 0)
