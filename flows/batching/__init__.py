"""The parts of the `batch` flow: what is asked, what is taken, where it is executed, what came of it."""
