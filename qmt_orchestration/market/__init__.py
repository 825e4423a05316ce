"""The domain, pure: calendar and sessions, symbols and boards, price limits, the tick schema, quality rules.

Imports nothing else of this project and does no I/O.
"""
