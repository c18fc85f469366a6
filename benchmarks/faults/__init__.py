"""Break a grid on purpose, let it go on, and look at what is left. python -m benchmarks.faults [FAULT ...] [--rows FILE]"""
