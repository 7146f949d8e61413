"""Does a proof run: workload, faults, and the records of what was seen."""
