"""The gateway's router, journal and ejection under random faults, on a clock that only moves when nobody can."""
