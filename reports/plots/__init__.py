"""The plots of a report, drawn with Altair."""
