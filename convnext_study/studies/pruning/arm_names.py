"""The arms' names, in records and in words, and which weights they start from."""

from __future__ import annotations

# Of what is pruned.
FINE_TUNED, INHERITED = "fine_tuned", "inherited"
SCRATCH_E, SCRATCH_B, SCRATCH_T = "scratch_e", "scratch_b", "scratch_t"
TICKET, CONTROL, SLOW_TICKET, SLOW_CONTROL = "ticket", "control", "slow_ticket", "slow_control"
ALL = (FINE_TUNED, INHERITED, SCRATCH_E, SCRATCH_B, SCRATCH_T)
ROUNDS = tuple(f"round_{number}" for number in range(1, 10))
LOTTERY = (TICKET, CONTROL, SLOW_TICKET, SLOW_CONTROL)
# Of the large network.
DENSE, SLOW_DENSE, SPARSE_DENSE = "dense", "slow_dense", "sparse_dense"
# In a run's metadata: it is trained on other data than the study's, for its architecture alone.
OF_OTHER_DATA = "of_other_data"
LABELS = {
    DENSE: "dense",
    SLOW_DENSE: "dense, slow",
    SPARSE_DENSE: "dense, prepared",
    FINE_TUNED: "fine-tuned",
    INHERITED: "inherited + schedule",
    SCRATCH_E: "Scratch-E",
    SCRATCH_B: "Scratch-B",
    SCRATCH_T: "Scratch-T",
    TICKET: "winning ticket",
    CONTROL: "control",
    SLOW_TICKET: "winning ticket, slow",
    SLOW_CONTROL: "control, slow",
    **{name: name.replace("_", " ") for name in ROUNDS},
}
# Which weights an arm starts from, where they are not random.
WEIGHTS = {
    FINE_TUNED: "inherited",
    INHERITED: "inherited",
    TICKET: "rewound",
    SLOW_TICKET: "rewound",
}
SLOW_ARMS = (SLOW_TICKET, SLOW_CONTROL)
