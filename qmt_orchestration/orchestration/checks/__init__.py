"""Running the checks of `quality`, and the two kinds that are no SQL on one table: live ones, and those against QMT."""
