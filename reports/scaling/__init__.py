"""The report of a scaling study: its tables, figures and sentences, from the points of its runs."""
