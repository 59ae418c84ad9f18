"""Instance evaluation where the classes of the things are not the first ones."""

from collections.abc import Sequence

import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances


class ThingEvaluator(DatasetEvaluator):
    """Hands instances on to an evaluator that counts the things from 0 without gaps."""

    def __init__(self, evaluator: DatasetEvaluator, thing_classes: Sequence[int]) -> None:
        """``thing_classes``: class of the model of every class that ``evaluator`` knows."""
        self._evaluator = evaluator
        self._position = torch.full((max(thing_classes) + 1,), -1)
        self._position[list(thing_classes)] = torch.arange(len(thing_classes))

    def reset(self) -> None:
        """Forget what was seen."""
        self._evaluator.reset()

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict]) -> None:
        """See Detectron2; ValueError where an instance is of a class that is no thing."""
        things = [
            {"instances": self._renumbered(output["instances"])} if "instances" in output else {}
            for output in outputs
        ]
        self._evaluator.process(inputs, things)

    def evaluate(self) -> dict | None:
        """The results of the evaluator."""
        return self._evaluator.evaluate()

    def _renumbered(self, instances: Instances) -> Instances:
        fields = dict(instances.get_fields())
        classes = fields.pop("pred_classes")
        known = classes.cpu().clamp(max=len(self._position) - 1)
        position = torch.where(known == classes.cpu(), self._position[known], -1)
        if (position < 0).any():
            wrong = classes.cpu()[position < 0].unique().tolist()
            raise ValueError(
                f"the model predicts instances of classes {wrong}, which are no things"
            )
        return Instances(instances.image_size, **fields, pred_classes=position.to(classes.device))
