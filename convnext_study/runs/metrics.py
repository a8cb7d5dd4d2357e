"""The content of a result: metrics, the evidence they are computed from, and costs.

Tables, figures and tests know no metric by name: a metric has its own label, unit, direction and
the evidence for an interval over the samples.
"""

from __future__ import annotations

import base64
import binascii
import math
import zlib
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from convnext_study.errors import UserError

if TYPE_CHECKING:
    from numpy import ndarray
    from numpy.typing import ArrayLike

NETWORK = "network"  # the cost of the whole network, which every result has
_MAX_NUMBERS = 2**22  # in a metric's evidence, which a thousandth of the bytes may unpack to

# Bounds on values in a record from anywhere: far above all real ones, and small enough that what
# is computed from them stays finite.
MAX_VALUE = 1e30
Text = Annotated[str, Field(max_length=1000)]
Count = Annotated[int, Field(ge=0, le=10**18)]
Finite = Annotated[float, Field(ge=-MAX_VALUE, le=MAX_VALUE)]  # and not NaN
# A loss may overflow: such values become NaN, which averages and tables can handle.
Number = Annotated[
    float, AfterValidator(lambda value: value if abs(value) <= MAX_VALUE else math.nan)
]
Plain = Text | bool | Count | Finite | None


class NoResultError(UserError):
    """There is nothing to measure."""


class FrozenModel(BaseModel):
    """A validated, immutable model without further fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Samples(FrozenModel):
    """A metric's evidence, sample by sample, in the order of the validation part.

    Args:
        kind: ``bits`` (right or wrong: the metric is the share of ones in percent), ``ratio``
            (two counts per class: the metric is the mean over classes of 100 times the sum of
            the first over the sum of the second, over the samples; classes whose second sum is 0
            are left out), or ``values`` (one number per sample: the metric is their mean).
        count: the number of samples.
        data: hex of the packed bits, the first sample in the highest bit; else base64 of zlib of
            little-endian float32 (``values``) or int32 of shape (count, classes, 2) (``ratio``).
        classes: of a ratio.
        groups: int32 in base64 of zlib, one per sample: samples with the same number are not
            independent, and are resampled together. None: all are independent.
    """

    kind: Literal["bits", "ratio", "values"]
    count: int = Field(ge=0)
    data: str
    classes: int = Field(default=1, ge=0, le=4096)
    groups: str | None = None

    @model_validator(mode="after")
    def _check_size(self) -> Samples:
        if self.kind == "bits" and len(self.data) != 2 * -(-self.count // 8):
            raise ValueError(f"data are not the bits of {self.count} samples")
        numbers = {"bits": 0, "values": 1, "ratio": 2 * self.classes}[self.kind]
        if self.count * max(numbers, self.groups is not None) > _MAX_NUMBERS:
            raise ValueError(f"more than {_MAX_NUMBERS:,} numbers")
        return self

    def check(self) -> None:
        """Unpack it. Raises ValueError if that fails or no metric can be computed from it."""
        import numpy as np

        array = self.array()
        if not np.isfinite(array).all() or (self.kind == "ratio" and (array < 0).any()):
            raise ValueError(f"{self.kind} of samples, from which no metric is computed")
        self.group_array()

    @classmethod
    def of_bits(cls, right: ArrayLike, groups: ArrayLike | None = None) -> Samples:
        """From one bool per sample."""
        import numpy as np

        bits = np.asarray(right, dtype=bool)
        packed = np.packbits(bits).tobytes().hex()
        return cls(kind="bits", count=len(bits), data=packed, groups=_packed_groups(groups))

    @classmethod
    def of_values(cls, values: ArrayLike, groups: ArrayLike | None = None) -> Samples:
        """From one number per sample."""
        import numpy as np

        array = np.asarray(values, dtype="<f4")
        return cls(
            kind="values", count=len(array), data=_pack(array), groups=_packed_groups(groups)
        )

    @classmethod
    def of_ratio(cls, counts: ArrayLike, groups: ArrayLike | None = None) -> Samples:
        """From counts of shape (samples, classes, 2), such as intersections and unions."""
        import numpy as np

        array = np.asarray(counts, dtype="<i4")
        if array.ndim != 3 or array.shape[2] != 2:
            raise ValueError(f"counts of shape {array.shape}, not (samples, classes, 2)")
        return cls(
            kind="ratio",
            count=array.shape[0],
            classes=array.shape[1],
            data=_pack(array),
            groups=_packed_groups(groups),
        )

    def array(self) -> ndarray[Any, Any]:
        """Bools (count,), floats (count,) or integers (count, classes, 2), depending on kind."""
        import numpy as np

        if self.kind == "bits":
            packed = np.frombuffer(bytes.fromhex(self.data), dtype=np.uint8)
            return np.unpackbits(packed, count=self.count).astype(bool)
        if self.kind == "values":
            return _unpack(self.data, "<f4", self.count)
        numbers = _unpack(self.data, "<i4", self.count * self.classes * 2)
        return numbers.reshape(self.count, self.classes, 2)

    def group_array(self) -> ndarray[Any, Any] | None:
        """The group of each sample; None if all samples are independent."""
        return None if self.groups is None else _unpack(self.groups, "<i4", self.count)


class Metric(FrozenModel):
    """One number of an evaluation, and what it means.

    Args:
        value: in ``unit``.
        label: in tables and figures, such as ``top-1``.
        unit: ``%``, or empty for a bare number.
        higher_is_better: its direction.
        samples: what it is computed from; if None, tests use only the seeds.
    """

    value: Number
    label: Text
    unit: Text = "%"
    higher_is_better: bool = True
    samples: Samples | None = None

    @property
    def heading(self) -> str:
        """Label and unit: ``top-1 %``."""
        return f"{self.label} {self.unit}".strip()


class Cost(BaseModel):
    """The cost per sample: multiply-accumulates of convolution and linear layers, parameters, and
    outputs of convolutions (as fvcore counts activations). A study may add fields."""

    model_config = ConfigDict(frozen=True, extra="allow")

    macs: Count
    params: Count
    activations: Count


class Measured(BaseModel):
    """Metrics, one of them primary, and costs, one of them the whole network's."""

    model_config = ConfigDict(frozen=True, extra="allow")

    metrics: dict[Text, Metric]
    primary: str
    costs: dict[Text, Cost]

    @model_validator(mode="after")
    def _check_names(self) -> Measured:
        if self.primary not in self.metrics:
            raise ValueError(f"primary metric {self.primary!r} is not among the metrics")
        if not math.isfinite(self.value):
            raise ValueError(f"{self.metric.label} is {self.value}, which is not a valid result")
        if NETWORK not in self.costs:
            raise ValueError(f"costs: {NETWORK!r} is missing")
        return self

    @property
    def metric(self) -> Metric:
        """The primary metric."""
        return self.metrics[self.primary]

    @property
    def value(self) -> float:
        """The primary metric's value, in its unit."""
        return self.metric.value

    @property
    def cost(self) -> Cost:
        """The whole network's cost."""
        return self.costs[NETWORK]


def _packed_groups(groups: ArrayLike | None) -> str | None:
    import numpy as np

    return None if groups is None else _pack(np.asarray(groups, dtype="<i4"))


def _pack(array: ndarray[Any, Any]) -> str:
    return base64.b64encode(zlib.compress(array.tobytes(), 9)).decode()


def _unpack(text: str, kind: str, count: int) -> ndarray[Any, Any]:
    """``count`` numbers of four bytes each. Raises ValueError if there are more or fewer."""
    import numpy as np

    try:  # with a limit, since a few bytes could unpack to many
        data = zlib.decompressobj().decompress(base64.b64decode(text), 4 * count + 1)
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"samples cannot be unpacked ({error})") from None
    if len(data) != 4 * count:
        raise ValueError(f"{count} samples are recorded, but {len(data) // 4} are present")
    return np.frombuffer(data, dtype=kind)
