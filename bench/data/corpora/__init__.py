"""The corpora, one file each. A corpus is found by its file name, so there is no list of corpora to edit.

For example, the corpus `grammar-en-de` is the file grammar.py with source language en and target language de. The file
of a corpus has a function `load(settings, source, target) -> Corpus`. Files whose names begin with an underscore are
helpers.
"""
