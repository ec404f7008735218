"""GPU records to one row per API call, rows to graph launches: arrays in, arrays out."""
