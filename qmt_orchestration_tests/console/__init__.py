"""Tests of the console: real engines, a real server, a real browser."""
