"""Pure values and their codecs: no clock, no loop, no store."""
