"""The arms: what they are called, which weights they start from, and how long they are trained.

| arm | weights | epochs |
|---|---|---|
| dense | random | the base recipe's, E |
| fine_tuned | inherited | few, at a small constant rate |
| inherited | inherited | E, the whole schedule |
| scratch_e | random | E |
| scratch_b | random | as many as cost what the dense training cost |
| scratch_t | random | as many as cost the dense training and E epochs of the pruned network |
| ticket, control | rewound, other random ones | E, under the trained network's mask |
| round_1, round_2, ... | rewound or inherited | E, under the mask of the round before and more |
| slow_ticket, slow_control | the same | all of it at a tenth of the rate, the dense training too |

Scratch-T and the second factor, inherited weights with the whole schedule, are ours. `schedules`
has their recipes. No torch here.
"""

# Of what is pruned.
FINE_TUNED, INHERITED = "fine_tuned", "inherited"
SCRATCH_E, SCRATCH_B, SCRATCH_T = "scratch_e", "scratch_b", "scratch_t"
TICKET, CONTROL, SLOW_TICKET, SLOW_CONTROL = "ticket", "control", "slow_ticket", "slow_control"
ALL = (FINE_TUNED, INHERITED, SCRATCH_E, SCRATCH_B, SCRATCH_T)
ROUNDS = tuple(f"round_{number}" for number in range(1, 10))
LOTTERY = (TICKET, CONTROL, SLOW_TICKET, SLOW_CONTROL)
# Of the large network.
DENSE, SLOW_DENSE, SPARSE_DENSE = "dense", "slow_dense", "sparse_dense"
SLOW_ARMS = (SLOW_DENSE, SLOW_TICKET, SLOW_CONTROL)
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
