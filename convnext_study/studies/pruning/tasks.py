"""The tasks of this study, both of them image classification (no torch here)."""

ARM_TASK, SPARSE_TASK = "pruning-arm", "pruning-sparse"
_HERE = "convnext_study.studies.pruning"
TASKS = {
    ARM_TASK: f"{_HERE}.arm_training:Arm",
    SPARSE_TASK: f"{_HERE}.sparse_training:SparseTraining",
}
