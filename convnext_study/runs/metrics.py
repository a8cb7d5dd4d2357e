"""What a result says of a network: metrics, the evidence they are computed from, and costs.

Tables, figures and tests know no metric by name: a metric brings its label, its unit, its
direction and how an interval over the samples is found.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

if TYPE_CHECKING:
    from numpy import ndarray
    from numpy.typing import ArrayLike

NETWORK = "network"  # the cost of the whole network, which every result has


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Samples(_Plain):
    """A metric's evidence, sample by sample, in the order of the validation part.

    Args:
        kind: ``bits`` (right or wrong: the metric is the share of ones in percent), ``ratio``
            (two counts for each class: the metric is the mean over classes of 100 times the sum
            of the first by the sum of the second, over the samples; classes whose second sum is 0
            are left out), or ``values`` (one number a sample: the metric is their mean).
        count: how many samples.
        data: hex of the packed bits, the first sample in the highest bit; else base64 of zlib of
            little-endian float32 (``values``) or int32 of shape (count, classes, 2) (``ratio``).
        classes: of a ratio.
        groups: int32 in base64 of zlib, one a sample: those that share a number are not
            independent, and are drawn together. None: all are.
    """

    kind: Literal["bits", "ratio", "values"]
    count: int
    data: str
    classes: int = 1
    groups: str | None = None

    @classmethod
    def of_bits(cls, right: ArrayLike, groups: ArrayLike | None = None) -> Samples:
        """From one bool a sample."""
        import numpy as np

        bits = np.asarray(right, dtype=bool)
        packed = np.packbits(bits).tobytes().hex()
        return cls(kind="bits", count=len(bits), data=packed, groups=_packed_groups(groups))

    @classmethod
    def of_values(cls, values: ArrayLike, groups: ArrayLike | None = None) -> Samples:
        """From one number a sample."""
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
        """Bools (count,), floats (count,) or integers (count, classes, 2), by kind."""
        import numpy as np

        if self.kind == "bits":
            packed = np.frombuffer(bytes.fromhex(self.data), dtype=np.uint8)
            return np.unpackbits(packed, count=self.count).astype(bool)
        if self.kind == "values":
            return _unpack(self.data, "<f4")
        return _unpack(self.data, "<i4").reshape(self.count, self.classes, 2)

    def group_array(self) -> ndarray[Any, Any] | None:
        """The group of each sample; None where all samples are independent."""
        return None if self.groups is None else _unpack(self.groups, "<i4")


class Metric(_Plain):
    """One number of an evaluation, and how it is read.

    Args:
        value: in ``unit``.
        label: in tables and figures, such as ``top-1``.
        unit: ``%``, or empty for a bare number.
        higher_is_better: its direction.
        samples: what it is computed from; without, tests have only the seeds.
    """

    value: float
    label: str
    unit: str = "%"
    higher_is_better: bool = True
    samples: Samples | None = None

    @property
    def heading(self) -> str:
        """Label and unit: ``top-1 %``."""
        return f"{self.label} {self.unit}".strip()


class Cost(BaseModel):
    """What one sample costs: multiply-accumulates of convolution and linear layers, learnable
    numbers, and the outputs of convolutions (as fvcore counts activations). A study may add."""

    model_config = ConfigDict(frozen=True, extra="allow")

    macs: int
    params: int
    activations: int


class Measured(BaseModel):
    """Metrics, one of them primary, and costs, one of them of the whole network."""

    model_config = ConfigDict(frozen=True, extra="allow")

    metrics: dict[str, Metric]
    primary: str
    costs: dict[str, Cost]

    @model_validator(mode="after")
    def _check_names(self) -> Measured:
        if self.primary not in self.metrics:
            raise ValueError(f"primary metric {self.primary!r} is not among the metrics")
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


def values_of(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """The metrics' values by name, for a line of the log."""
    return {name: metric.value for name, metric in metrics.items()}


def _packed_groups(groups: ArrayLike | None) -> str | None:
    import numpy as np

    return None if groups is None else _pack(np.asarray(groups, dtype="<i4"))


def _pack(array: ndarray[Any, Any]) -> str:
    return base64.b64encode(zlib.compress(array.tobytes(), 9)).decode()


def _unpack(text: str, kind: str) -> ndarray[Any, Any]:
    import numpy as np

    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=kind)
