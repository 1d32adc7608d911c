"""Words, parts of speech, lemmas, plurals and negation, as the benchmarks' programs read them.

Imports `params` alone of `adapt`; NLTK is loaded when a text is read.
"""
