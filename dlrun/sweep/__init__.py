"""Sweeps: many jobs made from one command line, each a run of its own, and what they came to together.

A *source* (grid.py, search/) makes frozen jobs, a *launcher* (launchers/) runs them, and driver.py stands between the
two. All that is known of a sweep lies in its folder (folder.py), so that it can be resumed from there.
"""
