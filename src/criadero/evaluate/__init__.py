"""Evaluation on the benchmarks of the paper (LLaMA 3 and 5): prompts, scoring, results.

Entry points: `runner.evaluate`, and `scoring.Scorer` underneath. A task of tasks/ turns published items into
texts to be scored; the scorer forwards what they share once; the runner keeps every item's result.
"""
