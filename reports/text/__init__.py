"""Texts and numbers of a report: findings, formats of metrics, escaping, catalogues by language, the setup."""
