"""Nsight Systems: reports and their sqlite and parquetdir exports."""
