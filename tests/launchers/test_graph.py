"""In what order runs that start from each other are trained."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.runs import make_tiny_run

from convnext_study.errors import UserError
from convnext_study.launchers.graph import Job, Outcome, Schedule, levels
from convnext_study.launchers.slurm.cluster import ClusterConfig
from convnext_study.launchers.slurm.submit import run_slurm
from convnext_study.runs.records import Run
from convnext_study.training.runtime import Runtime

BASE = make_tiny_run()


def job(name: str, parent: Run | None = None) -> Job:
    run = BASE.model_copy(
        update={"data": name, "name": name, "init_from": parent.key if parent else None}
    )
    return Job(run, Path("/x/study/runs") / run.id, Runtime())


@given(st.lists(st.integers(-1, 30), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_every_job_starts_once_and_after_its_parent(choices: list[int], dice: object) -> None:
    made: list[Job] = []
    for number, choice in enumerate(choices):
        made.append(job(str(number), made[choice % number].run if number and choice >= 0 else None))
    dice.shuffle(made)  # type: ignore[attr-defined]
    schedule, done = Schedule(made), list[str]()
    while schedule.waiting:
        taken = schedule.take()
        assert taken is not None
        assert taken.run.init_from is None or taken.run.init_from in done
        done.append(taken.run.key)
        schedule.settle(Outcome(taken.run, "done"))
    assert sorted(done) == sorted(one.run.key for one in made)
    order = [one.run.key for level in levels(made) for one in level]
    for one in made:
        if one.run.init_from is not None:
            assert order.index(one.run.init_from) < order.index(one.run.key)


def test_a_child_waits_and_others_go_first() -> None:
    parent, other = job("parent"), job("other")
    child = job("child", parent.run)
    schedule = Schedule([child, parent, other])
    assert [schedule.take(), schedule.take(), schedule.take()] == [parent, other, None]
    schedule.settle(Outcome(parent.run, "done"))
    assert schedule.take() == child
    assert not schedule.waiting


@pytest.mark.parametrize("end", ["stopped", "busy", "failed"])
def test_children_end_as_the_run_that_they_start_from(end: str) -> None:
    parent = job("parent")
    child = job("child", parent.run)
    schedule = Schedule([parent, child, job("grandchild", child.run)])
    schedule.take()
    ends = schedule.settle(Outcome(parent.run, end))
    assert [one.status for one in ends] == [end] * 3
    why = "its parent run failed: {}" if end == "failed" else "not started: its parent run is {}"
    assert [one.reason for one in ends[1:]] == [why.format(one.run.id) for one in (parent, child)]


@pytest.mark.parametrize("end", ["done", "failed"])
def test_a_long_chain_costs_a_digest_or_two_a_run(
    monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    chain = [job("0")]
    for number in range(1, 1200):
        update = {"name": str(number), "init_from": str(number - 1)}
        chain.append(replace(chain[0], run=BASE.model_copy(update=update)))
    digests: list[str] = []

    def key(run: Run) -> str:
        digests.append(run.name)
        return run.name

    monkeypatch.setattr(Run, "key", property(key))
    schedule, ends = Schedule(chain[::-1]), list[Outcome]()
    while (taken := schedule.take()) is not None:
        ends += schedule.settle(Outcome(taken.run, end))
    assert [one.run.name for one in ends] == [str(number) for number in range(1200)]
    assert {one.status for one in ends} == {end}
    assert [one.run.name for (one,) in levels(chain[::-1])] == [one.run.name for one in ends]
    assert len(digests) <= 5 * len(chain)


def test_slurm_gets_one_array_a_level_that_waits_for_the_one_before(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    parent, other = job("parent"), job("other")
    children = [job("child", parent.run), job("second", other.run)]
    assert [len(level) for level in levels([*children, parent, other])] == [2, 2]
    cluster = ClusterConfig(minutes=5, sbatch={"dependency": "singleton"})
    run_slurm([*children, parent, other], cluster, dry_run=True)
    scripts = capsys.readouterr().out.split("#!/bin/bash")[1:]
    assert len(scripts) == 2
    assert "--dependency=singleton\n" in scripts[0]
    assert "--dependency=singleton,afterany:" in scripts[1]


def test_a_circle_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    # Keys are digests, so that a real circle cannot be made.
    monkeypatch.setattr(Run, "key", property(lambda run: run.name))
    circle = [
        replace(one, run=one.run.model_copy(update={"init_from": other}))
        for one, other in ((job("one"), "two"), (job("two"), "one"))
    ]
    with pytest.raises(UserError, match="depends on a run that depends on it"):
        Schedule(circle)
