"""The networks of the pruning study, each built from a spec of plain values."""
