"""The engine of the corpus `grammar`: meanings, languages as data, and what is generated from both."""
