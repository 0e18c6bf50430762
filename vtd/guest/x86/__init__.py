"""VT-x: VMCS, VMX instructions, entries and exits, EPT, APIC virtualization, posted interrupts.

Sections are those of Intel's Software Developer's Manual, volume 3C, June 2016.
"""
