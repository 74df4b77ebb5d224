"""Bring a workspace up to date, as every night: without Prefect, in steps that can be killed."""
