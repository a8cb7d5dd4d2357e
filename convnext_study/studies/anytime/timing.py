"""How long a trained network takes to each of its exits, image by image."""

from __future__ import annotations

import statistics
import time

from convnext_study.runs.records import Record
from convnext_study.studies.anytime.trained import load, remembered

IMAGES = 20


def exit_milliseconds(record: Record) -> list[float]:
    """Medians over images, of one core, in the fastest form that the masks allow.

    Other processes are not counted. Raises UserError where the network cannot be had.
    """
    import torch

    from convnext_study.benchmarks.timing import laps, one_thread
    from convnext_study.studies.anytime.skipping.accelerate import accelerated
    from convnext_study.studies.anytime.skipping.measure import measure_table

    def measure() -> list[float]:
        trained = load(record)
        images, _ = trained.task.first_images(IMAGES)
        fast = accelerated(trained.net)
        with one_thread(), torch.inference_mode():
            if fast.segments:
                measure_table(fast, images[:1], clock=time.process_time)
            one_by_one = [images[place : place + 1] for place in range(len(images))]
            for image in (*one_by_one[:2], *one_by_one):
                for _ in fast.run(image):
                    pass
            found = [
                laps(lambda image=image: fast.run(image), time.process_time)  # type: ignore[misc]
                for image in one_by_one
            ]
        # An image whose exits were all decided before takes no time for the rest.
        return [1000 * statistics.median(times) for times in zip(*found, strict=True)]

    return [float(one) for one in remembered(record, "milliseconds", measure)]
