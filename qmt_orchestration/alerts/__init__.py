"""Alerts: what to send, to whom, and how often. No Dagster here: `orchestration.sensors.alerts` brings the findings.

A *finding* is one observation of one thing (a check, a run, a service): it fails or it does not. *State* turns findings
into notices: a failure is announced once per window, its recovery once. *Delivery* sends notices through channels and
removes one only after its channel has accepted it.
"""
