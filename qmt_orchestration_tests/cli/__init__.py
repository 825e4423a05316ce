"""Tests of the `qmt` command."""
