"""The parts of the `evaluate` flow: what is asked, what each transcript is worth, what all together say, what was before."""
