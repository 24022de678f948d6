"""The corpora: one file each, found by its name.

`grammar-en-de` is the file grammar.py, read from English into German. A corpus is a file with a function
`load(settings, source, target) -> Corpus`. It is found by its file name, so there is no list of corpora to edit.
Files whose names begin with an underscore are helpers.
"""
