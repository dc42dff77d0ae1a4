"""The parts of `benchmarks/chaos.py`: what runs, what kills, what is checked, what is reported."""
