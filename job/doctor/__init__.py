"""The verb `doctor`: can a run live here? Probes of a store, of this machine, and of its GPUs; a line for each."""
