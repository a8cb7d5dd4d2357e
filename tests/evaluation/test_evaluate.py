"""Evaluating networks: a run's, timm's and torchvision's, and what is refused."""

import json
import math
import shutil
import socket
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from support.exits import exit_run
from support.images import make_folder
from support.released import as_authors
from support.runs import make_tiny_run
from typer.testing import CliRunner

from convnext_study.cli import app
from convnext_study.data import open_data
from convnext_study.data.dataset import CorruptImage, DataError
from convnext_study.errors import UserError
from convnext_study.evaluation import load_named as named
from convnext_study.evaluation.evaluate import evaluate, evaluate_by_task
from convnext_study.evaluation.load_named import Unreachable, load_named
from convnext_study.evaluation.load_run import EvaluationError, load_run
from convnext_study.experiments.data_identity import identify
from convnext_study.models.builders import roadmap_net
from convnext_study.models.pretrained.convert import PretrainedError
from convnext_study.models.roadmap_net import RoadmapNet
from convnext_study.roadmap import get_roadmap
from convnext_study.runs.metrics import Samples
from convnext_study.runs.records import Result
from convnext_study.training.guard import ScoresError
from convnext_study.training.loop import train
from convnext_study.training.runtime import Runtime


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("study") / "runs" / "dense"
    return folder, train(exit_run(), folder)


def test_its_own_metrics_again(dense: tuple[Path, Result]) -> None:
    folder, result = dense
    done = command(str(folder), "--device", "cpu", "--trust", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["primary"] == result.primary
    assert told["images"] == result.val_images
    for name, metric in result.metrics.items():
        assert told["metrics"][name]["value"] == pytest.approx(metric.value, abs=1e-3), name
    shown = command(str(folder), "--device", "cpu", "--trust").stdout
    assert f"{result.value:.2f} %" in shown


def test_on_data_of_other_classes_it_is_refused(dense: tuple[Path, Result]) -> None:
    loaded = load_run(dense[0], trust=True)
    assert loaded.run is not None
    assert loaded.class_names is not None
    with pytest.raises(EvaluationError, match="other class names, or another order"):
        evaluate_by_task(replace(loaded, class_names="other"), loaded.run.data, Runtime())


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose result is that of averaged weights."""
    folder = tmp_path_factory.mktemp("run")
    train(make_tiny_run(epochs=2, ema=0.9, eval_weights="ema"), folder)
    return folder


@pytest.fixture(autouse=True)
def _one_thread_again() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


def test_a_run_is_evaluated_on_its_classes_in_their_order_only(tmp_path: Path) -> None:
    own = make_folder(tmp_path / "own", ("1", "2", "10"), 2)
    run = make_tiny_run(epochs=1, global_batch_size=4)
    (run,) = identify([run.model_copy(update={"data": f"folder:{own}"})], required=True)
    train(run, tmp_path / "run")
    where = str(tmp_path / "run")
    right = command(where, "--device", "cpu", "--json")
    assert right.exit_code == 0, right.exception
    for data in (
        f"timm:{own}",  # which sorts them the other way
        f"folder:{make_folder(tmp_path / 'renamed', ('1', '2', '11'), 2)}",
    ):
        done = command(where, "--device", "cpu", "--data", data)
        assert isinstance(done.exception, EvaluationError)
        assert f"another order, than {data} has" in str(done.exception)
    # Data that was moved is the run's own, where it is named.
    moved = own.rename(tmp_path / "moved")
    gone = command(where)
    assert isinstance(gone.exception, DataError)
    assert str(gone.exception).endswith("pass its new location: --data folder:PATH")
    notes = evaluate(load_run(Path(where)), open_data(f"folder:{moved}"), 8, Runtime()).notes
    assert not any("assuming that these classes are the same" in note for note in notes)
    moved.rename(own)
    # The training part is not needed, neither in the data that are named nor in its own.
    shutil.rmtree(own / "train")
    for named_data in ([], ["--data", f"folder:{own / 'val'}"]):
        done = command(where, "--device", "cpu", "--json", *named_data)
        assert done.exit_code == 0, done.exception
        told = json.loads(done.stdout)
        assert told["correct_bits"] == json.loads(right.stdout)["correct_bits"]
        assert any("only the validation part" in note for note in told["notes"])


def test_a_training_part_alone_is_no_validation_part(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "own")
    shutil.rmtree(root / "val")
    for kind in ("folder", "timm"):
        with pytest.raises(DataError, match="val"):
            open_data(f"{kind}:{root}", val_alone=True)
        with pytest.raises(DataError):
            open_data(f"{kind}:{root / 'train' / 'cat' / '0.jpg'}", val_alone=True)
        with pytest.raises(DataError):  # to train, both are needed
            open_data(f"{kind}:{root / 'train'}")


def test_a_run_whose_data_changed_after_it_was_asked_for_does_not_begin(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "cls")
    run = make_tiny_run(epochs=1, global_batch_size=4)
    (run,) = identify([run.model_copy(update={"data": f"folder:{root}"})])
    (root / "train" / "cat" / "0.jpg").unlink()
    with pytest.raises(UserError, match="has changed since this run was created"):
        train(run, tmp_path / "run")


def result_of(folder: Path) -> Result:
    return Result.model_validate_json((folder / "result.json").read_text())


def samples_of(result: Result) -> Samples:
    assert result.metric.samples is not None
    return result.metric.samples


def command(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["eval", *arguments])


def test_a_run_is_worth_what_its_record_says(run_folder: Path) -> None:
    done = command(str(run_folder), "--json")
    assert done.exit_code == 0, done.exception
    told, recorded = json.loads(done.stdout), result_of(run_folder)
    assert told["top1"]["percent"] == pytest.approx(recorded.value)
    assert told["images"] == recorded.val_images
    assert told["correct_bits"] == samples_of(recorded).data
    assert told["top1"]["low"] < told["top1"]["percent"] < told["top1"]["high"]
    assert "not ImageNet-1K" in told["measured_on"]


def test_compiled_it_is_worth_the_same(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, compiler = [], torch.compile

    def quick(net: Any) -> Any:  # without the minute that generating code takes
        compiled.append(net)
        return compiler(net, backend="eager")

    monkeypatch.setattr(torch, "compile", quick)
    result = evaluate(load_run(run_folder), open_data("digits"), 301, Runtime(compile=True))
    assert len(compiled) == 1
    assert result.top1.percent == pytest.approx(result_of(run_folder).value, abs=0.2)


def test_in_the_precision_that_it_was_trained_in(tmp_path: Path) -> None:
    train(make_tiny_run(epochs=1, global_batch_size=512, precision="bf16"), tmp_path)
    loaded, seen = load_run(tmp_path), set[torch.dtype]()
    loaded.net.register_forward_hook(lambda _, __, logits: seen.add(logits.dtype))
    result = evaluate(loaded, open_data("digits"), 301, Runtime())
    assert seen == {torch.bfloat16}
    assert result.precision == "bf16"
    # In bf16 another size of batch, or a matrix product for a convolution, can tip an image over.
    differ = int(result.correct_bits, 16) ^ int(samples_of(result_of(tmp_path)).data, 16)
    assert differ.bit_count() <= 3


def test_top5_and_the_screen(run_folder: Path) -> None:
    loaded, data = load_run(run_folder), open_data("digits")
    result = evaluate(loaded, data, 100, Runtime())
    samples = [data.val.pixels(index) for index in range(len(data.val))]
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in (data.mean, data.std))
    pixels = (torch.stack([image for image, _ in samples]) / 255 - mean) / std
    with torch.inference_mode():
        order = loaded.net(pixels).argsort(1, descending=True)
    labels = torch.tensor([label for _, label in samples])
    assert result.top5 is not None
    assert result.top5.right == sum(
        label in row[:5] for label, row in zip(labels.tolist(), order.tolist(), strict=True)
    )
    shown = command(str(run_folder)).stdout
    assert f"{result.top5.right} of {len(labels)}" in shown
    assert "Wilson" in shown


def test_the_transform_can_be_changed(run_folder: Path) -> None:
    done = command(str(run_folder), "--image-size", "40", "--crop-pct", "0.8", "--json")
    told = json.loads(done.stdout)
    assert told["transform"] == "short side to 50, centre crop of 40, bicubic"
    assert told["top1"]["percent"] != result_of(run_folder).value


@pytest.mark.parametrize("bad", [1, 4])
def test_bad_images_leave_the_denominator(tmp_path: Path, bad: int) -> None:
    data = make_folder(tmp_path, count=2)
    names = [f"{kind}/{index}.jpg" for kind in ("cat", "dog") for index in range(2)]
    for name in names[-bad:]:
        (data / "val" / name).write_bytes(b"")
    weights = tmp_path / "two.pth"
    torch.save(timm.create_model("roadmap_nano_gelu", num_classes=2).state_dict(), weights)
    asked = ["roadmap_nano_gelu", "--weights", str(weights), "--data", f"folder:{data}"]
    stopped = command(*asked)
    assert isinstance(stopped.exception, CorruptImage)
    done = command(*asked, "--corrupt-images", "skip", "--json")
    if bad == 4:
        assert isinstance(done.exception, DataError)
        assert "none of its 4 validation images" in str(done.exception)
        return
    told = json.loads(done.stdout)
    assert (told["images"], told["corrupt_images"]) == (3, 1)
    assert told["top1"]["percent"] == pytest.approx(100 * told["top1"]["right"] / 3)
    assert "1 of 4 validation images cannot be decoded and are left out" in told["notes"]


def test_published_transforms() -> None:
    resnet = load_named("torchvision:resnet18").transform
    assert (resnet.resized, resnet.image_size, resnet.interpolation) == (256, 224, "bilinear")
    for name in ("convnext_atto", "roadmap_t_gelu"):
        asked = load_named(name).transform
        assert (asked.resized, asked.image_size, asked.interpolation) == (256, 224, "bicubic")
        assert asked.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    "name",
    ["convnext_atto", "vit_tiny_patch16_224", "levit_128s", "torchvision:squeezenet1_1"],
)
def test_any_order_of_weights_tells_the_classes(name: str, tmp_path: Path) -> None:
    make = torchvision.models.get_model if ":" in name else timm.create_model
    net = make(name.rpartition(":")[2], num_classes=12)
    save_file(net.state_dict(), tmp_path / "w[red].safetensors")  # which sorts names
    loaded = load_named(name, weights=tmp_path / "w[red].safetensors")
    assert loaded.classes == 12
    again = loaded.net.state_dict()
    assert all(torch.equal(again[key], value) for key, value in net.state_dict().items())


def test_weights_for_a_network_that_has_no_classifier_unless_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make: Any = timm.create_model
    torch.save(make("test_vit", num_classes=3).state_dict(), tmp_path / "w.pth")

    def like_dinov2(name: str, num_classes: int = 0, **rest: Any) -> Any:
        return make(name, num_classes=num_classes, **rest)

    monkeypatch.setattr(timm, "create_model", like_dinov2)
    assert load_named("test_vit", weights=tmp_path / "w.pth").classes == 3


def test_which_weights_of_a_file_are_taken_is_said(tmp_path: Path) -> None:
    state = timm.create_model("test_convnext", num_classes=10).state_dict()
    path = tmp_path / "last.pth.tar"
    torch.save({"state_dict": state, "state_dict_ema": state, "args": Namespace(lr=1.0)}, path)
    loaded = load_named("test_convnext", weights=path)
    assert loaded.weights == "from last.pth.tar: averaged (state_dict_ema)"
    assert "--eval-weights raw" in loaded.notes[0]
    raw = ["test_convnext", "--weights", str(path), "--eval-weights", "raw", "--data", "digits"]
    done = command(*raw, "--image-size", "32", "--json")
    assert json.loads(done.stdout)["weights"] == "from last.pth.tar: raw (state_dict)"
    assert command(*raw[:-3], "mean", *raw[-2:]).exit_code == 2


def test_no_accuracy_of_scores_that_are_not_finite(tmp_path: Path) -> None:
    path, net = tmp_path / "w.pth", timm.create_model("test_convnext", num_classes=10)
    state = net.state_dict()
    torch.save({**state, "head.fc.bias": state["head.fc.bias"] * math.nan}, path)
    arguments = ("--data", "digits", "--image-size", "32")
    done = command("test_convnext", "--weights", str(path), *arguments)
    assert isinstance(done.exception, ScoresError)
    assert "787 of 787" in str(done.exception)
    assert "head.fc.bias" in str(done.exception)
    assert not done.stdout


def test_weights_tell_layer_scale_and_grn(tmp_path: Path) -> None:
    row, path = "roadmap_nano_separate_downsampling", tmp_path / "w.safetensors"
    spec = get_roadmap("nano").variants()[-1].spec
    theirs = {"depths": spec.depths, "dims": spec.widths(), "num_classes": 7}
    for fields in ({"layer_scale": None, "grn": True}, {"layer_scale": 1e-6, "grn": False}):
        net = timm.create_model(row, num_classes=7, **fields)
        more = {"use_grn": fields["grn"], "ls_init_value": fields["layer_scale"]}
        authors = as_authors(timm.models.ConvNeXt(**theirs, **more).state_dict())
        for state in (net.state_dict(), authors):
            save_file(state, path)
            loaded = load_named(row, weights=path)
            assert loaded.classes == 7
            assert cast(RoadmapNet, loaded.net).spec == net.spec


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["convnext_tinyy", "--data", "digits"], "did you mean convnext_tiny?"),
        (["torchvision:resnet5", "--data", "digits"], "did you mean resnet50?"),
        (["torchvision:resnet18.V9", "--data", "digits"], "available: IMAGENET1K_V1"),
        (["no/such/run"], "no/such/run: no such run folder"),
        (["roadmap_nano_gelu"], "no data set given"),
        (["convnext_atto", "--data", "digits"], "distinguishes 1000 classes, digits has 10"),
        (["roadmap_nano_gelu", "--data", "digits", "--weights", "gone.pth"], "gone.pth"),
        (["roadmap_t_gelu", "--data", "digits", "--pretrained"], "No pretrained weights"),
    ],
)
def test_one_line_for_what_cannot_be(arguments: list[str], says: str) -> None:
    done = command(*arguments)
    assert isinstance(done.exception, UserError)
    assert says in str(done.exception)
    assert "\n" not in str(done.exception)


def test_without_a_network_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("Name or service not known\nand more")

    monkeypatch.setattr(named, "_resolves", lambda _: True)
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(Unreachable, match=r"cannot be downloaded \(Name or service not known\)"):
        load_named("convnext_tiny.fb_in1k", pretrained=True)


def test_no_address_no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any) -> None:
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    for variable in named._PROXIES:
        monkeypatch.delenv(variable, raising=False)
    assert not named._resolves("example.org")
    monkeypatch.setenv("https_proxy", "http://proxy:1")
    assert named._resolves("example.org")


def test_weights_that_are_missing_or_of_another_network(tmp_path: Path) -> None:
    run = make_tiny_run()
    record = {"key": run.key, "run": run.model_dump(mode="json")}
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(EvaluationError, match="no readable checkpoint"):
        load_run(tmp_path)
    net = roadmap_net(run.model.args, num_classes=10, drop_path=0.0, init="kaiming")
    torch.save(net.state_dict(), tmp_path / "tiny.pth")
    with pytest.raises(EvaluationError, match="do not fit RoadmapNet"):
        load_named("roadmap_nano_layer_norm", weights=tmp_path / "tiny.pth")
    torch.save({"cls_token": torch.zeros(1)}, tmp_path / "vit.pth")
    with pytest.raises(PretrainedError, match=r"vit\.pth: the weights have no known layout"):
        load_named("roadmap_nano_layer_norm", weights=tmp_path / "vit.pth")
