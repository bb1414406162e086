"""The words that a number of the ball may be given as. The one rule: a word stands for a number that the kernels know."""

#: how far inside the ball results stay: to the last number, or by the margin of geoopt and HypLL
EPS = {"eps": {"tight": 0.0, "compat": -1.0}}
