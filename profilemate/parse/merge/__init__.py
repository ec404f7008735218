"""Several recordings to one trace: whose process, one clock, each message once."""
