"""From a model to translations: greedy and beam search, ensembles, unknown-word replacement."""
