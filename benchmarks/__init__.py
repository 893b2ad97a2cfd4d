"""Timings beside other frameworks, each in a process of its own that takes turns with ours."""
