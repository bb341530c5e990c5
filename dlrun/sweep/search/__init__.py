"""A search: trials that Optuna proposes from what came of the earlier ones.

starting.py begins or resumes one, study.py is the source of its jobs, pruning.py is what a job asks after each epoch.
"""
