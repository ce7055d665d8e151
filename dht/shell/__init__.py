"""The directory's driver over whoever provides ``wire.ports.Providers``."""
