"""The drill: a tiny job is killed in every phase, run again as a scheduler would, and held against one left alone."""
