"""A spec is plain data, equal to its JSON form, and refuses what cannot be built."""

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

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
@settings(derandomize=True)
def test_json_round_trip_gives_the_same_key(spec: NetSpec) -> None:
    back = NetSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert back == spec
    assert hash(back) == hash(spec)
    assert {spec: "found"}[back] == "found"


def test_fields_left_out_are_those_of_resnet50_and_the_json_form_has_all() -> None:
    assert NetSpec.from_dict({}) == RESNET50
    assert NetSpec.from_dict({"depths": [3, 24, 36, 3]}) == RESNET200
    assert list(RESNET50.to_dict()) == [field.name for field in dataclasses.fields(NetSpec)]


def test_outer_widths() -> None:
    assert RESNET50.widths() == (256, 512, 1024, 2048)
    assert RESNET50.replace(inverted=True, width=96).widths() == (96, 192, 384, 768)
    assert RESNET_NANO.replace(expansion=2).widths() == (16, 32, 64, 128)


INVALID: dict[str, list[Any]] = {
    "depths": [
        (3, 4, 6),
        (3, 4, 6, 3, 3),
        (3, 4, 0, 3),
        (3, 4, 6.0, 3),
        (3, 4, True, 3),
        "3463",
        16,
    ],
    "width": [0, -64, 64.0, "64", True, None],
    "stem": ["pachify", None],
    "stem_stride": [3, True, "4"],
    "depthwise": [1, "yes"],
    "inverted": [0, None],
    "spatial_first": [1],
    "kernel": [4, 0, -3, 3.0, True, (3, 3)],
    "activation": ["swish"],
    "activations": [2, True],
    "norm": ["group"],
    "norms": [2, True],
    "downsampling": ["pool", ["separate"]],
    "expansion": [0, 4.0],
    "layer_scale": [0, -1e-6, 2, True, "1e-6", "much", math.nan, [1e-6]],
    "layout": ["iso", True],
    "grn": [1, None],
}


@pytest.mark.parametrize("field", RESNET50.to_dict())
def test_an_invalid_value_is_refused_in_one_line_that_names_the_field(field: str) -> None:
    def makers(value: Any) -> list[Callable[[], object]]:
        return [
            lambda: NetSpec(**{field: value}),
            lambda: NetSpec.from_dict({field: value}),
            lambda: RESNET200.replace(**{field: value}),
        ]

    for make in [make for value in INVALID[field] for make in makers(value)]:
        with pytest.raises(SpecError) as caught:
            make()
        message = str(caught.value)
        assert message.startswith(f"{field}: ")
        assert "\n" not in message
        assert "use " in message or "needs" in message, "the message must say what to do"


def test_an_unknown_field_is_named_with_the_nearest_known_one() -> None:
    with pytest.raises(SpecError, match=r"^kernel_size: no such field .* did you mean kernel\?$"):
        NetSpec.from_dict({"kernel_size": 7})
    with pytest.raises(SpecError, match="no such field of a network; use one of depths, width"):
        RESNET50.replace(zzz=1)
