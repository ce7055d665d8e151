"""The demonstration: strangers render a picture and are paid for it, with real processes, a real market and play money."""
