"""The live web page for the person at 09:30: is the market flowing, is it complete, who reads it, what failed.

`service` runs it (one process, uvicorn), `app` has the routes, `guard` what protects them, `live` gathers what is shown
(once a second for all viewers together), `quotes` answers for single symbols. The page, in static/, needs no build.
"""
