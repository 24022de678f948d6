"""The tables of a report: the comparison and the tables behind it."""
