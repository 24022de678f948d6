"""The engine of the corpus `grammar`: meanings, languages defined by data, and the sentences generated from both."""
