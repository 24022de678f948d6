"""From runs to data: reads tracked runs and gathers what a report says in one `Context`."""
