"""From tracked runs to tables, plots and pages. Reads runs; never trains or measures."""
