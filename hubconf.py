"""torch.hub: ``torch.hub.load("OWNER/REPOSITORY", "roadmap_t_gelu", num_classes=10)``.

Every network that timm knows of this package is an entry point; keywords are those of
`timm.create_model`, and ``pretrained=True`` loads the released weights at the ends of the road.
"""

import timm

from convnext_study.models.registry import MODELS

dependencies = ["torch", "torchvision", "timm", "einops", "pydantic"]

globals().update({name: timm.model_entrypoint(name) for name in MODELS})
