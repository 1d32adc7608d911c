"""Reading a decoder's attention to its image: capture, the layout of image tokens, signals, anchor.

Torch and transformers only; knows no data, no stage, and `adapt.params` alone of this package.
`settings` needs no torch, so that configuration loads, and answers are judged, without it.
"""
