"""Feeds: how snapshots reach the gateways. One file each, independent of one another."""
