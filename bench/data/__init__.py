"""From sentence pairs to batches of token ids: corpora, vocabularies, batches, corpus statistics."""
