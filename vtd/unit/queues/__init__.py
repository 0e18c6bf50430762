"""Queues and messages: invalidations, page requests, device-TLB traffic."""
