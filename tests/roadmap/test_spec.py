"""A spec is plain data, equal to its JSON form, and refuses what cannot be built."""

import dataclasses
import json
import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convnext_study.roadmap.spec import (
    CHOICES,
    RESNET50,
    RESNET200,
    RESNET_NANO,
    NetSpec,
    SpecError,
)

specs = st.builds(
    NetSpec,
    depths=st.tuples(*[st.integers(1, 4)] * 4),
    width=st.integers(1, 128),
    kernel=st.sampled_from([1, 3, 5, 7, 9, 11]),
    expansion=st.integers(1, 6),
    layer_scale=st.none() | st.floats(0, 1, exclude_min=True),
    **{name: st.sampled_from(values) for name, values in CHOICES.items()},
)


@given(specs)
@settings(deadline=None, derandomize=True)
def test_json_round_trip_gives_the_same_key(spec: NetSpec) -> None:
    back = NetSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert back == spec
    assert hash(back) == hash(spec)
    assert {spec: "found"}[back] == "found"


def test_json_form_names_every_field() -> None:
    assert list(RESNET50.to_dict()) == [field.name for field in dataclasses.fields(NetSpec)]


def test_fields_left_out_are_those_of_resnet50() -> None:
    assert NetSpec.from_dict({}) == RESNET50
    assert NetSpec.from_dict({"depths": [3, 24, 36, 3]}) == RESNET200


def test_a_spec_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        RESNET50.width = 96  # type: ignore[misc]


def test_outer_widths() -> None:
    assert RESNET50.widths() == (256, 512, 1024, 2048)
    assert RESNET50.replace(inverted=True, width=96).widths() == (96, 192, 384, 768)
    assert RESNET_NANO.replace(expansion=2).widths() == (16, 32, 64, 128)


def test_with_leaves_the_original_alone() -> None:
    wider = RESNET50.replace(width=96)
    assert (RESNET50.width, wider.width) == (64, 96)
    assert wider.replace(width=64) == RESNET50


INVALID = [
    ("depths", (3, 4, 6)),
    ("depths", (3, 4, 6, 3, 3)),
    ("depths", (3, 4, 0, 3)),
    ("depths", (3, 4, -6, 3)),
    ("depths", (3, 4, 6.0, 3)),
    ("depths", (3, 4, True, 3)),
    ("depths", "3463"),
    ("depths", None),
    ("depths", 16),
    ("width", 0),
    ("width", -64),
    ("width", 64.0),
    ("width", "64"),
    ("width", True),
    ("width", None),
    ("stem", "pachify"),
    ("stem", None),
    ("stem_stride", 3),
    ("stem_stride", True),
    ("stem_stride", "4"),
    ("depthwise", 1),
    ("depthwise", "yes"),
    ("inverted", 0),
    ("inverted", None),
    ("spatial_first", 1),
    ("kernel", 4),
    ("kernel", 0),
    ("kernel", -3),
    ("kernel", 3.0),
    ("kernel", True),
    ("kernel", (3, 3)),
    ("activation", "swish"),
    ("activations", 2),
    ("activations", True),
    ("norm", "group"),
    ("norms", 2),
    ("norms", True),
    ("downsampling", "pool"),
    ("downsampling", ["separate"]),
    ("expansion", 0),
    ("expansion", 4.0),
    ("layer_scale", 0),
    ("layer_scale", -1e-6),
    ("layer_scale", 2),
    ("layer_scale", True),
    ("layer_scale", "1e-6"),
    ("layer_scale", "much"),
    ("layer_scale", math.nan),
    ("layer_scale", [1e-6]),
    ("layout", "iso"),
    ("layout", True),
    ("grn", 1),
    ("grn", None),
]


@pytest.mark.parametrize(("field", "value"), INVALID)
def test_an_invalid_value_is_refused_in_one_line_that_names_the_field(
    field: str, value: object
) -> None:
    makers: list[Callable[[], object]] = [
        lambda: NetSpec(**{field: value}),  # type: ignore[arg-type]
        lambda: NetSpec.from_dict({field: value}),
        lambda: RESNET200.replace(**{field: value}),
    ]
    for make in makers:
        with pytest.raises(SpecError) as caught:
            make()
        message = str(caught.value)
        assert message.startswith(f"{field}: ")
        assert "\n" not in message
        assert "use " in message or "needs" in message, "the message must say what to do"


def test_every_field_has_an_invalid_value_above() -> None:
    assert {field for field, _ in INVALID} == set(RESNET50.to_dict())


def test_an_unknown_field_is_named_with_the_nearest_known_one() -> None:
    with pytest.raises(SpecError, match=r"^kernel_size: no such field .* did you mean kernel\?$"):
        NetSpec.from_dict({"kernel_size": 7})
    with pytest.raises(SpecError, match="no such field of a network; use one of depths, width"):
        RESNET50.replace(zzz=1)


def test_only_the_first_of_many_faults_is_told() -> None:
    generator = random.Random(0)
    for _ in range(20):
        faults = dict(generator.sample(INVALID, 3))
        with pytest.raises(SpecError) as caught:
            NetSpec.from_dict(faults)
        assert str(caught.value).split(":")[0] in faults
