"""How regularizers are judged: pure functions of arrays. Nothing here reads files, plots, or keeps random state.

Accuracies are fractions in [0, 1], and the seed is the unit: seed s is the same initial weights, batch order and split
for every regularizer, so that comparisons are made in pairs. Equal input gives equal output, bit for bit.
"""
