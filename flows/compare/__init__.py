"""The comparison of arms: which part of the method does the work, over several worlds.

`python -m flows.compare --help`. `arms` says what is compared, `cells` and `pool` compute it once
and several at a time, `scoring` scores an arm, `rates` chooses its learning rate, `table` writes
the result, `ablate` is the flow. Outside, `flows.rounds` and `flows.chain` alone build on it:
rounds are arms.
"""
