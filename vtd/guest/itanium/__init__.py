"""VT-i: virtual processors of Itanium (SDM volume 2, Processor Virtualization and PAL chapters).

PSR.vm and the virtualization fault in the processor, PAL firmware with procedures and services, a
descriptor in memory for each virtual processor. The hardware is retired; see docs/guests.md.
"""
