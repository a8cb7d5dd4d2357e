"""timm's interface of a model, for any network of a stem, stages and a head.

timm itself is imported only inside the methods that need it. Files with a ``forward`` do not
postpone the evaluation of annotations: torch.fx writes them into the code of traced networks,
where TorchScript needs types.
"""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from convnext_study.models.blocks import Head, jit_ignore
from convnext_study.models.layers import init_layers


class TimmModel(nn.Module):
    """Images (N, in_chans, H, W) through stem, stages and head to logits (N, num_classes).

    ``init_weights`` initialises the weights; networks with another usual init override it.

    Args:
        spec: description of the network.
        stem: a module.
        stages: modules with ``blocks`` and a flag ``grad_checkpointing``.
        head: takes the last stage's map.
        sizes: for each stage, its channels and reduction (the image's side over the map's).
        num_classes: outputs; 0 if there is no classifier.
        in_chans: channels of the image.
        output_stride: largest reduction of the last map.
        drop_rate: dropout before the classifier.
    """

    def __init__(
        self,
        spec: Any,
        stem: nn.Module,
        stages: Iterable[nn.Module],
        head: Head,
        sizes: Iterable[tuple[int, int]],
        *,
        num_classes: int,
        in_chans: int,
        output_stride: int,
        drop_rate: float,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.stem = stem
        self.stages = nn.Sequential(*stages)
        self.head = head
        self.feature_info: list[dict[str, Any]] = [
            {"num_chs": channels, "reduction": reduction, "module": f"stages.{stage}"}
            for stage, (channels, reduction) in enumerate(sizes)
        ]
        self.num_features = self.head_hidden_size = self.feature_info[-1]["num_chs"]
        self.num_classes, self.in_chans = num_classes, in_chans
        self.output_stride, self.drop_rate = output_stride, drop_rate
        self.init_weights()

    @jit_ignore
    def init_weights(self, scheme: str = "trunc_normal") -> None:
        """Truncated normal (Table 5, used for every row with the enhanced recipe) or ``kaiming``,
        torchvision's init of ResNets, which the classic recipe uses."""
        init_layers(self, scheme)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (N, in_chans, H, W) to the last stage's map (N, num_features, h, w)."""
        return self.stages(self.stem(x))  # type: ignore[no-any-return]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """A map to logits, or with ``pre_logits`` to pooled and normed features."""
        return self.head(x, pre_logits)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, in_chans, H, W) to logits (N, num_classes)."""
        return self.forward_head(self.forward_features(x))

    @jit_ignore
    def get_classifier(self) -> nn.Module:
        """The classifier; `Identity` if there is none."""
        return self.head.fc

    @jit_ignore
    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier (none for 0), and the pooling if one is given."""
        weight = next(self.parameters())
        self.num_classes = num_classes
        self.head.reset(self.head_hidden_size, num_classes, global_pool)
        self.head.fc.to(weight.device, weight.dtype).train(self.training)

    @jit_ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory: blocks are recomputed in the backward pass."""
        for stage in self.stages:
            stage.grad_checkpointing = enable  # type: ignore[assignment]

    @jit_ignore
    def no_weight_decay(self) -> set[str]:
        """Empty: norms, biases and layer scale are 1-D, which timm never decays."""
        return set()

    @jit_ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that group parameters by depth, for layer-wise learning rates.

        Parameters that match none, those of the head, come last.
        """
        if coarse:
            return {"stem": r"^stem", "blocks": r"^stages\.(\d+)"}
        downsample = (r"^stages\.(\d+)\.downsample", (0,))  # with the stage's first block
        return {"stem": r"^stem", "blocks": [downsample, (r"^stages\.(\d+)\.blocks\.(\d+)", None)]}

    @jit_ignore
    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """The maps after the chosen stages: ``(final, maps)``, or only ``maps``.

        ``norm`` is accepted for compatibility with timm: there is no norm after the last map.
        """
        from timm.models._features import feature_take_indices

        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt: {output_fmt!r}; only NCHW is supported")
        take, last = feature_take_indices(len(self.stages), indices)
        maps: list[Tensor] = []
        x = self.stem(x)
        stages = self.stages[: last + 1] if stop_early else self.stages
        for index, stage in enumerate(stages):
            x = stage(x)
            if index in take:
                maps.append(x)
        return maps if intermediates_only else (x, maps)

    @jit_ignore
    def prune_intermediate_layers(
        self,
        indices: int | list[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Drop the stages after the last chosen one; returns the chosen indices.

        The head is removed too, if requested or if it no longer fits. ``prune_norm`` is accepted
        for compatibility with timm.
        """
        from timm.models._features import feature_take_indices

        take, last = feature_take_indices(len(self.stages), indices)
        shortened = last < len(self.stages) - 1
        self.stages = self.stages[: last + 1]
        if prune_head or shortened:
            self.num_features = self.head_hidden_size = self.feature_info[last]["num_chs"]
            self.head.shorten()
            self.reset_classifier(0, "")
        return list(take)
