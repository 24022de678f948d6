"""From configurations to tracked runs: one job, a suite of jobs, and the local or Ray workers that run them."""
