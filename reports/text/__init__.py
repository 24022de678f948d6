"""Words and numbers of a report: findings, number formats, escaping, translated texts, the experimental setup."""
