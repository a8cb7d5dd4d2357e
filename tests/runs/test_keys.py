"""Keys: what makes two runs the same run, over new fields, moved modules and versions."""

import json
from dataclasses import make_dataclass
from pathlib import Path
from typing import Any

import pytest
from support.runs import make_tiny_run

import convnext_study.recipes
from convnext_study.experiments.roadmap_runs import roadmap_runs
from convnext_study.models.builders import get_builder
from convnext_study.recipes import Recipe
from convnext_study.roadmap import get_roadmap
from convnext_study.roadmap.spec import NetSpec
from convnext_study.runs import keys
from convnext_study.runs.files import RUN
from convnext_study.runs.folder import RunFolder
from convnext_study.runs.records import ModelRef, RecordError, Run, read
from convnext_study.studies.multipath.rows import runs_of

GOLDEN = Path(__file__).parents[1] / "golden" / "run_keys.json"


def all_runs() -> dict[str, Run]:
    """Runs of every kind by what they are, none of which may ever become another run."""
    found = {}
    for regime, data in (("nano", "digits"), ("t", "folder:imagenet"), ("b", "folder:imagenet")):
        road = get_roadmap(regime)
        for run in roadmap_runs(road, road.variants(), data=data, seeds=[0]):
            found[f"{regime} {run.name}"] = run
    # Since its own published recipe is known, another run than it was; that one stays what it was.
    end = found["b separate_downsampling"]
    found["b separate_downsampling, drop_path 0.5"] = end
    before = {"recipe": {**end.recipe, "drop_path": 0.1}}
    found["b separate_downsampling"] = end.model_copy(update=before)
    for run in runs_of("digits", [0], None, {}):
        found[f"multipath {run.name}"] = run
    return found


@pytest.fixture
def afresh() -> Any:
    """Defaults are looked up again before and after the test."""
    caches = (keys._recipe_defaults, keys._roadmap_defaults)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def test_keys_are_frozen() -> None:
    frozen = json.loads(GOLDEN.read_text())
    assert {name: run.key for name, run in all_runs().items()} == frozen


def changed(run: Run, part: str, **fields: Any) -> Run:
    """A run of which some fields of the recipe or of the network are others."""
    if part == "recipe":
        return run.model_copy(update={"recipe": {**run.recipe, **fields}})
    model = run.model.model_copy(update={"args": {**run.model.args, **fields}})
    return run.model_copy(update={"model": model})


@pytest.mark.parametrize("part", ["recipe", "network"])
def test_a_new_field_at_its_default_changes_no_key(
    monkeypatch: pytest.MonkeyPatch, afresh: None, part: str
) -> None:
    before = make_tiny_run()

    class Later(Recipe):
        twist: int = 0

    later_spec = make_dataclass("Later", [("twist", int, 0)], bases=(NetSpec,), frozen=True)
    monkeypatch.setattr(convnext_study.recipes, "Recipe", Later)
    monkeypatch.setattr("convnext_study.roadmap.spec.NetSpec", later_spec)
    assert changed(before, part, twist=0).key == before.key
    assert changed(before, part, twist=1).key != before.key


def test_names_are_no_part_of_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_tiny_run()
    names = {"study": "other", "name": "other", "metadata": {"label": "other"}}
    assert changed(run, "recipe", name="mine").model_copy(update=names).key == run.key
    assert run.model_copy(update={"seed": 1}).key != run.key
    assert changed(run, "recipe", lr=0.5).key != run.key
    before = run.key
    monkeypatch.setattr(keys, "SEMANTICS", keys.SEMANTICS + 1)  # where results change
    assert run.key != before


def test_a_users_file_is_its_content_wherever_it_lies() -> None:
    about = {"file": "a/own.py", "function": "net", "sha256": "0", "args": {"width": 4}}

    def key(inside: str | None = None, **changes: Any) -> str:
        model = {"builder": "file", "args": {**about, **changes}}
        if inside is not None:  # as the parent of a network that is made from it
            model = {"builder": inside, "args": {"parent": model, "file": "its own"}}
        run = make_tiny_run()
        return run.model_copy(update={"model": ModelRef.model_validate(model)}).key

    for inside in (None, "pruning-narrowed"):
        assert key(inside) == key(inside, file="b/moved.py")
        for changes in ({"sha256": "1"}, {"function": "other"}, {"args": {"width": 8}}):
            assert key(inside) != key(inside, **changes)
    assert key("pruning") != key("pruning-narrowed")
    odd = {"parent": {"builder": ["file"], "args": 3}, "file": "kept: no network of a file"}
    assert key(args=odd) != key(args={**odd, "file": "other"})


def test_builders_have_names_and_no_import_paths() -> None:
    for run in all_runs().values():
        assert ":" not in run.model.builder
        assert "." not in run.model.builder
        assert callable(get_builder(run.model.builder))
    for name, says in (("rodmap", "; did you mean roadmap"), ("multipath-x", "")):
        with pytest.raises(ValueError, match=f"builder '{name}'{says}"):
            get_builder(name)


def test_a_record_changed_by_hand_is_not_read(tmp_path: Path) -> None:
    with RunFolder(tmp_path, make_tiny_run()):
        pass
    assert read(tmp_path).run == make_tiny_run()
    about = json.loads((tmp_path / RUN).read_text())
    about["run"]["recipe"]["epochs"] = 3
    (tmp_path / RUN).write_text(json.dumps(about))
    with pytest.raises(RecordError, match="its key does not match the run it describes"):
        read(tmp_path)
