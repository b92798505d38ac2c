"""Energy and carbon: what a run drew, how that is known, and what the paper's arithmetic gives.

`meter.EnergyMeter` reads joules with a provenance per component, `ledger` keeps them for a run folder over
failures and resumptions, `paper` is the arithmetic of Table 15.
"""
