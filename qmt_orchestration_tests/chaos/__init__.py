"""The short form of `make chaos`: real engines, real processes on two hosts, real kills."""
