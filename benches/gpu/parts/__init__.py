"""The parts of a run, each a module with `run(part)`."""
